# The single-scale ResNet-34 of the 2020 release, exactly.
_base_ = './swiftnet-ss-2020_r18_1xb14-53k_cityscapes-768x768.py'
model = dict(
    backbone=dict(depth=34, init_cfg=dict(checkpoint='torchvision://resnet34')))
