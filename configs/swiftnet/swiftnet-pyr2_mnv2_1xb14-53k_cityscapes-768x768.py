# The pyramid of two levels on MobileNetV2.
_base_ = './swiftnet-pyr2_r18_1xb14-53k_cityscapes-768x768.py'
model = dict(
    backbone=dict(encoder=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(1, 2, 4, 6),
        init_cfg=dict(type='Pretrained', checkpoint='mmcls://mobilenet_v2'))),
    neck=dict(in_channels=(24, 32, 96, 320)))
