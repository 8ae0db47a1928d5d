# 15 epochs of 36,572 pairs at a batch of 12: 45,705 iterations of Adam (L2, not AdamW), no warm-up.
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='Adam', lr=2.25e-4, weight_decay=1e-4))
param_scheduler = [
    dict(type='MultiStepLR', milestones=[22500, 37500], gamma=0.1, by_epoch=False)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=45705, val_interval=3047)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3047, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'))
sync_bn = 'torch'  # statistics over all 12 crops
