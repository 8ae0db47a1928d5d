# From random weights, all at the full rate.
_base_ = './swiftnet-ss_mnv2_1xb8-600_camvid-720x960.py'
model = dict(backbone=dict(init_cfg=None))
optim_wrapper = dict(paramwise_cfg=None)
