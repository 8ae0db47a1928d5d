# Single scale, ResNet-34.
_base_ = './swiftnet-ss_r18_1xb14-53k_cityscapes-768x768.py'
model = dict(
    backbone=dict(depth=34, init_cfg=dict(checkpoint='torchvision://resnet34')))
