# Half resolution, MobileNetV2; the paper: 70.6 mIoU (supplement Table 5).
_base_ = './swiftnet-ss_r18_1xb14-53k_cityscapes-448x448.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(1, 2, 4, 6),
        init_cfg=dict(type='Pretrained', checkpoint='mmcls://mobilenet_v2')),
    neck=dict(in_channels=(24, 32, 96, 320)))
