# The single-scale ResNet-50 of the 2020 release, exactly: its blocks are not torchvision's.
_base_ = './swiftnet-ss-2020_r18_1xb14-53k_cityscapes-768x768.py'
model = dict(
    backbone=dict(
        depth=50, relu_before_sum=True, init_cfg=dict(checkpoint='torchvision://resnet50')),
    neck=dict(in_channels=(256, 512, 1024, 2048)))
