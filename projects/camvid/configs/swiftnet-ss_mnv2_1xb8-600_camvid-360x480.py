# MobileNetV2 with ImageNet weights on half-size pictures.
_base_ = '../../../configs/swiftnet/swiftnet-ss_r18_1xb8-1k_camvid-360x480.py'
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(1, 2, 4, 6),
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/mobilenetv2.pth')),
    neck=dict(in_channels=(24, 32, 96, 320)))
optim_wrapper = dict(
    type='mmsparse.BFloat16OptimWrapper',
    paramwise_cfg=dict(
        _delete_=True, custom_keys=dict(backbone=dict(lr_mult=0.25, decay_mult=0.25))))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=600, eta_min=1e-6, by_epoch=False)]
train_cfg = dict(max_iters=600, val_interval=600)
default_hooks = dict(checkpoint=dict(interval=600))
custom_hooks = [dict(type='mmsparse.ChannelsLastHook')]
