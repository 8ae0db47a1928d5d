# The pyramid of two levels, otherwise as that of three.
_base_ = './swiftnet-pyr3_r18_1xb14-53k_cityscapes-768x768.py'
model = dict(backbone=dict(levels=2), neck=dict(levels=2))
