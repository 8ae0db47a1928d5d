# Specialize and Fuse on a ResNet-101 without dilation, HRNet's last stage as its decoder.
_base_ = './specialize-fuse_hr48.py'
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    pretrained='open-mmlab://resnet101_v1c',
    backbone=dict(
        _delete_=True,
        type='ResNetV1c',
        depth=101,
        norm_cfg=norm_cfg,
        contract_dilation=True),
    neck=dict(
        type='mmsparse.HRFusionDecoder',
        in_channels=(256, 512, 1024, 2048),
        norm_cfg=norm_cfg))
