# Nearest-neighbor resizing in the decoder, for embedded devices; the paper: 73.69 mIoU.
_base_ = './swiftnet-ss_r18_1xb14-53k_cityscapes-768x768.py'
model = dict(neck=dict(up_mode='nearest'))
