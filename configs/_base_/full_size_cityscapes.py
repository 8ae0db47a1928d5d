# Cityscapes at full size, as SparseRefine's released code trains on it. The pieces stand in a variable
# of their own, because the configs beside this file in `_base_` own the plain names.
full_size = dict(
    train_dataloader=dict(  # 8 GPUs x 4 images
        batch_size=4,
        num_workers=4,
        dataset=dict(pipeline=[
            dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
            dict(type='LoadAnnotations'),
            dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
            dict(type='RandomCrop', crop_size=(512, 1024), cat_max_ratio=0.75),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
            dict(type='PackSegInputs'),
        ])),
    val_dataloader=dict(
        dataset=dict(pipeline=[
            dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ])),
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 1024)))
