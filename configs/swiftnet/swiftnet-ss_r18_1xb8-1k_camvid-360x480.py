# Single scale, ResNet-18 on half-size CamVid pictures, scored at full size: a light base for
# SparseRefine. From random weights and for minutes, see projects/camvid.
_base_ = [
    '../_base_/models/swiftnet-ss_r18.py', '../_base_/datasets/camvid-720x960.py',
    '../_base_/default_runtime.py', '../_base_/schedules/swiftnet_53k.py',
]
model = dict(backbone=dict(init_cfg=None), decode_head=dict(num_classes=11))
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    # squares of 96 to 384 pixels of the half-size picture, cut from the full one: halving labels by
    # nearest neighbor would move them first
    dict(type='mmsparse.RandomSquareCropAndScale', size=192, ratio_range=(1.0, 4.0)),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='Resize', scale_factor=0.5),
    # after Resize: ground truth keeps its full size
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(paramwise_cfg=None)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=1000, eta_min=1e-6, by_epoch=False)]
train_cfg = dict(max_iters=1000, val_interval=1000)
default_hooks = dict(checkpoint=dict(interval=1000, save_best=None))
