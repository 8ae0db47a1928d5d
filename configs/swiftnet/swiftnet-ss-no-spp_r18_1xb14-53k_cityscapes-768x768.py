# Without spatial pyramid pooling; the paper: 71.47 mIoU.
_base_ = './swiftnet-ss_r18_1xb14-53k_cityscapes-768x768.py'
model = dict(neck=dict(use_spp=False))
