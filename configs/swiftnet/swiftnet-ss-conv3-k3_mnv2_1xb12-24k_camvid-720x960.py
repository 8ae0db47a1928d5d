# Supplement Table 2, upsampling by conv3.
_base_ = './swiftnet-ss_mnv2_1xb12-24k_camvid-720x960.py'
model = dict(
    neck=dict(up_block='conv3'),
    decode_head=dict(kernel_size=3, bias=False))
