# The 2020 release's pyramid with two levels.
_base_ = './swiftnet-pyr3-2020_r18_1xb14-53k_cityscapes-768x768.py'
model = dict(backbone=dict(levels=2), neck=dict(levels=2))
