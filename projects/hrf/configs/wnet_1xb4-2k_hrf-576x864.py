# A low-resolution segmentor of our own: a W-Net from random weights on photographs of a quarter of the
# height and width. What it learns from is written by projects/hrf/prepare.py.
_base_ = './wnet_1xb4-1500_hrf-1366x2048.py'
max_iters = 2000
size = (864, 576)
crop_size = (448, 448)
load_from = None
model = dict(
    backbone=dict(num_classes=3),
    auxiliary_head=dict(
        _delete_=True, type='mmsparse.ScoresHead', num_classes=3,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)))
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations', imdecode_backend='cv2'),
    dict(type='RandomResize', scale=size, ratio_range=(0.8, 1.25), keep_ratio=True, interpolation='area'),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = size
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=4e-3))
custom_hooks = [*_base_.custom_hooks, dict(type='mmsparse.ChannelsLastHook')]
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=50, by_epoch=False),
    dict(type='PolyLR', eta_min=1e-5, power=0.9, begin=50, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
