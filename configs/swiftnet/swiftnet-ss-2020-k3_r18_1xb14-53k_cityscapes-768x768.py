# The 2020 release's single-scale model with a 3x3 classifier without bias.
_base_ = './swiftnet-ss-2020_r18_1xb14-53k_cityscapes-768x768.py'
model = dict(decode_head=dict(kernel_size=3, bias=False))
