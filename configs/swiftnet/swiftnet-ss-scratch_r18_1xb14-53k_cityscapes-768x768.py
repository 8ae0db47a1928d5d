# From random weights, all at the full rate; the paper: 68.50 mIoU (Table 3) and 70.4 (Table 5).
_base_ = './swiftnet-ss_r18_1xb14-53k_cityscapes-768x768.py'
model = dict(backbone=dict(init_cfg=None))
optim_wrapper = dict(paramwise_cfg=None)
