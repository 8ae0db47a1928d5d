# The pyramid by the small study's recipe: 600 iterations of 8 squares of 288 pixels.
_base_ = './swiftnet-pyr2_mnv2_1xb8-4200_camvid-720x960.py'
_base_.train_pipeline[3].size = 288
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=600, eta_min=1e-6, by_epoch=False)]
train_cfg = dict(max_iters=600, val_interval=600)
default_hooks = dict(checkpoint=dict(interval=600))
