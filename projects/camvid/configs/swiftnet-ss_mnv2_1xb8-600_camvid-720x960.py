# The small study's recipe: 600 iterations of 8 squares of 288 pixels, else the long one's.
_base_ = '../../../configs/swiftnet/swiftnet-ss_mnv2_1xb8-4200_camvid-720x960.py'
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmsparse.RandomSquareCropAndScale', size=288),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=600, eta_min=1e-6, by_epoch=False)]
train_cfg = dict(max_iters=600, val_interval=600)
default_hooks = dict(checkpoint=dict(interval=600))
