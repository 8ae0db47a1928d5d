# From random weights, all at the full rate; the paper: 69.4 mIoU (Table 5).
_base_ = './swiftnet-ss_mnv2_1xb14-53k_cityscapes-768x768.py'
model = dict(backbone=dict(init_cfg=None))
optim_wrapper = dict(paramwise_cfg=None)
