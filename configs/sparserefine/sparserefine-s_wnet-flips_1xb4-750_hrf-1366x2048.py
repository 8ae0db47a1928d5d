# As sparserefine-s_wnet_1xb4-1500_hrf-1366x2048, from whose weights it goes on, on W-Net's scores averaged
# over the photograph and its flips: a retina has no side that is up.
_base_ = './sparserefine-s_wnet_1xb4-1500_hrf-1366x2048.py'
# What you may want to change
max_iters = 750
load_from = 'work_dirs/sparserefine-s_wnet_1xb4-1500_hrf-1366x2048/iter_1000.pth'
scores = f'{_base_.prepared}/wnet-1024-flips'

model = dict(low_res_flips=('horizontal', 'vertical', 'diagonal'))
_base_.train_pipeline[2].logits_root = scores
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=50, by_epoch=False),
    dict(type='PolyLR', eta_min=1e-5, power=0.9, begin=50, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
