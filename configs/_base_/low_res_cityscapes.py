# Cityscapes at half size: what a low-resolution baseline is trained on and sees. The pieces stand in
# a variable of their own, because the stock configs beside this file in `_base_` own the plain names.
# The environment variable MMSPARSE_DATA names the folder that holds `cityscapes`, else `data`.
low_res = dict(
    # Half the crop of the stock configs, as in the paper's released code.
    crop_size=(256, 512),
    dataset=dict(
        type='mmsparse.CityscapesDataset', data_root='{{$MMSPARSE_DATA:data}}/cityscapes'),
    train_pipeline=[
        dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
        dict(type='LoadAnnotations'),
        dict(type='RandomResize', scale=(1024, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type='RandomCrop', crop_size=(256, 512), cat_max_ratio=0.75),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'),
        dict(type='PackSegInputs'),
    ],
    test_pipeline=[
        dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
        dict(type='Resize', scale=(1024, 512)),
        # after Resize: ground truth keeps its full size
        dict(type='LoadAnnotations'),
        dict(type='PackSegInputs'),
    ],
    evaluator=[
        dict(type='IoUMetric', iou_metrics=['mIoU']),
        dict(type='mmsparse.IoUBySizeMetric'),
    ])
