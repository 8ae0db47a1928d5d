# The dense peer of refinement: the released W-Net, trained on for 1366x2048 with the losses, the data
# and the averaged weights of sparserefine-s_wnet_1xb4-1500_hrf-1366x2048. What it learns from is written
# by projects/hrf/prepare.py.
_base_ = '../../../configs/wnet/wnet_hrf-1024x1104.py'
max_iters = 1500
prepared = 'work_dirs/hrf-2048'
size = (2048, 1366)
load_from = 'mmsparse://wnet_hrf'
# The first U-Net's scores keep their four classes, one of them "uncertain", and have no loss.
model = dict(decode_head=dict(loss_decode=[
    dict(type='CrossEntropyLoss', avg_non_ignore=True), dict(type='DiceLoss', use_sigmoid=False)]))
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations', imdecode_backend='cv2'),
    dict(type='RandomCrop', crop_size=_base_.crop_size),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='Resize', scale=size, keep_ratio=False, interpolation='area'),
    # after it: scored at full size
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(
    data_root=prepared, img_suffix='.bmp', seg_map_suffix='.bmp', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(type='mmsparse.BFloat16OptimWrapper', optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=50, by_epoch=False),
    dict(type='PolyLR', eta_min=1e-5, power=0.9, begin=50, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
custom_hooks = [dict(type='EMAHook', momentum=0.005)]
default_hooks = dict(checkpoint=dict(interval=250, max_keep_ckpts=1))
val_evaluator = [
    dict(type='IoUMetric', iou_metrics=['mIoU', 'mDice']), dict(type='mmsparse.ThinStructureMetric')]
test_evaluator = val_evaluator
