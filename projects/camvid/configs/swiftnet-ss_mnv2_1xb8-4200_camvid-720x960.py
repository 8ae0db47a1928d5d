# As swiftnet-ss_mnv2_1xb8-600_camvid-720x960, but 4200 iterations of squares of 384 pixels: a night on
# one core. Three cycles of the learning rate: each ends with weights to use, scored.
_base_ = './swiftnet-ss_mnv2_1xb8-600_camvid-720x960.py'
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmsparse.RandomSquareCropAndScale', size=384),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
param_scheduler = [dict(
    type='CosineRestartLR', periods=[1400] * 3, restart_weights=[1] * 3, eta_min=1e-6, by_epoch=False)]
train_cfg = dict(max_iters=4200, val_interval=1400)
default_hooks = dict(checkpoint=dict(interval=200, max_keep_ckpts=1))
