# The single-scale model of the CVPR release (2019), exactly: taps after the ReLU, a 3x3 classifier
# without bias.
_base_ = './swiftnet-ss_r18_1xb14-53k_cityscapes-768x768.py'
model = dict(
    backbone=dict(tap='post'),
    decode_head=dict(kernel_size=3, bias=False))
