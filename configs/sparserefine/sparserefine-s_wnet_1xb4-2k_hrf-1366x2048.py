# SparseRefine on the released W-Net: its scores of 1024x1104, refined at 1366x2048, a third of the
# photograph's pixels (labels taken there and back lose 0.2 points of mIoU). The U-Net reads W-Net's
# probabilities beside the color, which alone hardly tells arteries from veins. What it learns from is
# written by projects/hrf/prepare.py.
_base_ = [
    '../_base_/models/wnet.py', '../_base_/datasets/hrf-2336x3504.py',
    '../_base_/default_runtime.py', '../_base_/schedules/schedule_400.py',
]
# What you may want to change
alpha = 0.2
low_size = (1024, 1104)
size = (2048, 1366)
features = ('rgb', 'p')
in_channels = 6  # of the features: 3 of color, 3 of classes
channels = (16, 32, 64, 128)
max_iters = 2000
prepared = 'work_dirs/hrf-2048'
scores = f'{prepared}/wnet-1024'

segmentor = _base_.model
segmentor.backbone.num_classes = 4
segmentor.auxiliary_head = None
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations', imdecode_backend='cv2'),
    dict(type='mmsparse.LoadLowResLogits', logits_root=scores),
    dict(type='RandomCrop', crop_size=_base_.crop_size),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PhotoMetricDistortion'),
    dict(type='mmsparse.PackRefineInputs'),
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
optim_wrapper = dict(type='mmsparse.BFloat16OptimWrapper', optimizer=dict(lr=3e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=50, by_epoch=False),
    dict(type='PolyLR', eta_min=1e-5, power=0.9, begin=50, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
model = dict(
    _delete_=True,
    type='mmsparse.SparseRefineSegmentor',
    segmentor=segmentor,
    segmentor_checkpoint='mmsparse://wnet_hrf',
    low_res_size=low_size,
    upsample='bilinear',
    joint_aug='post_lr',
    features=features,
    selector=dict(type='mmsparse.EntropySelector', alpha=alpha, min_points=256),
    decode_head=dict(
        type='mmsparse.SparseRefineHead',
        extractor=dict(type='mmsparse.SparseUNet', in_channels=in_channels, channels=channels),
        ensembler=dict(type='mmsparse.GatedEnsembler')),
    test_cfg=dict(mode='whole', seg_logits=False))
default_hooks = dict(
    checkpoint=dict(interval=250, max_keep_ckpts=2),
    visualization=dict(_delete_=True, type='mmsparse.RefinementVisualizationHook'))
visualizer = dict(type='mmsparse.RefinementVisualizer')
val_evaluator = [
    dict(type='IoUMetric', iou_metrics=['mIoU', 'mDice']),
    dict(type='mmsparse.LowResIoUMetric'),
    dict(type='mmsparse.SelectionLimitIoUMetric'),
    dict(type='mmsparse.SelectorMetric'),
    dict(type='mmsparse.ThinStructureMetric'),
]
test_evaluator = val_evaluator
