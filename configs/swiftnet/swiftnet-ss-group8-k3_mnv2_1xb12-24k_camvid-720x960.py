# Supplement Table 2, upsampling by group8.
_base_ = './swiftnet-ss_mnv2_1xb12-24k_camvid-720x960.py'
model = dict(
    neck=dict(up_block='group8'),
    decode_head=dict(kernel_size=3, bias=False))
