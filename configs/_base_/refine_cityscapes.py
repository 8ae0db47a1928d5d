# SparseRefine on Cityscapes: data, schedule and evaluation of the paper's released code. The pieces
# stand in a variable of their own, because the configs beside this file in `_base_` own the plain names.
refine = dict(
    train_dataloader=dict(  # 8 GPUs x 4 images
        batch_size=4,
        num_workers=4,
        dataset=dict(pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
            dict(type='RandomCrop', crop_size=(512, 1024), cat_max_ratio=0.75),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
            dict(type='PackSegInputs'),
        ])),
    val_dataloader=dict(
        dataset=dict(pipeline=[
            dict(type='LoadImageFromFile'),
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
        size=(512, 1024)),
    # AdamW on every parameter, cosine to zero over 500 epochs of 93 iterations.
    optim_wrapper=dict(
        _delete_=True,
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=3e-4, weight_decay=0.05)),
    param_scheduler=[dict(type='CosineAnnealingLR', T_max=46500, eta_min=0, by_epoch=False)],
    train_cfg=dict(type='IterBasedTrainLoop', max_iters=46500, val_interval=4650),
    default_hooks=dict(checkpoint=dict(interval=4650, save_best='mIoU')),
    # One evaluation shows what refinement bought.
    evaluator=[
        dict(type='IoUMetric', iou_metrics=['mIoU']),
        dict(type='mmsparse.LowResIoUMetric'),
        dict(type='mmsparse.SelectorMetric'),
        dict(type='mmsparse.IoUBySizeMetric'),
    ])
