# A light peer on the same photographs: SwiftNet on a MobileNetV2 with ImageNet's weights
# (work_dirs/mobilenetv2.pth, see projects/camvid/mobilenetv2.py), else as the dense W-Net.
_base_ = './wnet_1xb4-1500_hrf-1366x2048.py'
load_from = None
model = dict(
    # The weights at hand want colors from -1 to 1.
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        _delete_=True, type='MobileNetV2', out_indices=(1, 2, 4, 6),
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/mobilenetv2.pth')),
    neck=dict(type='mmsparse.SwiftNetNeck', in_channels=(24, 32, 96, 320), channels=128),
    decode_head=dict(
        _delete_=True, type='mmsparse.SwiftNetHead', in_channels=128, channels=128, in_index=-1,
        num_classes=3, loss_decode=_base_.model.decode_head.loss_decode))
optim_wrapper = dict(
    optimizer=dict(lr=1e-3), paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.25))))
custom_hooks = [*_base_.custom_hooks, dict(type='mmsparse.ChannelsLastHook')]
