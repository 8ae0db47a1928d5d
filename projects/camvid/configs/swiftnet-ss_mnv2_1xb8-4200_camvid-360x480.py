# configs/swiftnet/swiftnet-ss_mnv2_1xb8-4200_camvid-720x960 on half-size pictures, squares of 192.
_base_ = './swiftnet-ss_mnv2_1xb8-600_camvid-360x480.py'
param_scheduler = [dict(
    type='CosineRestartLR', periods=[1400] * 3, restart_weights=[1] * 3, eta_min=1e-6, by_epoch=False)]
train_cfg = dict(max_iters=4200, val_interval=1400)
default_hooks = dict(checkpoint=dict(interval=200, max_keep_ckpts=1))
