# The detector of mask-rcnn-plus_mnv2_1xb4-1k_carparts-320 without masks: what the heads are compared on
# starts from its weights.
_base_ = './mask-rcnn-plus_mnv2_1xb4-1k_carparts-320.py'
load_from = None
custom_hooks = []
max_iters = 2000
model = dict(roi_head=dict(mask_roi_extractor=None, mask_head=None))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=100, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=100, end=max_iters, eta_min=1e-6, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
