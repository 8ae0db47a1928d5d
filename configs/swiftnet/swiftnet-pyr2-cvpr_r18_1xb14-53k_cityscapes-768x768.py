# The CVPR release's pyramid (2019) with two levels; the paper: 75.45 mIoU.
_base_ = './swiftnet-pyr3-cvpr_r18_1xb14-53k_cityscapes-768x768.py'
model = dict(backbone=dict(levels=2), neck=dict(levels=2))
