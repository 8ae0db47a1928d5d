# Supplement Table 1, upsampling by group8; its parameters imply the 3x3 classifier.
_base_ = './swiftnet-ss_r18_1xb14-53k_cityscapes-768x768.py'
model = dict(
    neck=dict(up_block='group8'),
    decode_head=dict(kernel_size=3, bias=False))
