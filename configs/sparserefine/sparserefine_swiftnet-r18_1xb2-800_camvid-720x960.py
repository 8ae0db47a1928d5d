# SparseRefine on a SwiftNet of half the size; see projects/camvid. The segmentor sees whole images in
# training too: on crops its pyramid pooling, which spans the image, is uncertain nearly everywhere.
_base_ = [
    '../_base_/models/swiftnet-ss_r18.py', '../_base_/datasets/camvid-720x960.py',
    '../_base_/default_runtime.py', '../_base_/schedules/schedule_400.py',
    '../_base_/models/sparserefine.py',
]
# What you may want to change
alpha = 0.72  # entropy from which a pixel is refined, in nats
low_res_scale = 0.5  # of the image's size, what the segmentor sees
stages = (16, 32, 64)  # channels of the refiner's stages
segmentor_checkpoint = 'work_dirs/swiftnet-ss_r18_1xb8-1k_camvid-360x480/iter_1000.pth'

train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations'),
    dict(type='mmsparse.KeepLowRes', scale=(480, 360)),
    dict(type='RandomCrop', crop_size=_base_.crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='mmsparse.PackRefineInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
segmentor = _base_.model
segmentor.backbone.init_cfg = None
segmentor.decode_head.num_classes = 11
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=20, by_epoch=False),
    dict(type='PolyLR', eta_min=1e-5, power=0.9, begin=20, end=800, by_epoch=False),
]
train_cfg = dict(max_iters=800, val_interval=800)
sparserefine = _base_.sparserefine
sparserefine.selector.alpha = alpha
sparserefine.decode_head.extractor.channels = stages
model = dict(
    sparserefine,
    segmentor=segmentor,
    segmentor_checkpoint=segmentor_checkpoint,
    low_res_scale=low_res_scale,
    joint_aug='post_lr')
default_hooks = dict(
    checkpoint=dict(interval=800),
    visualization=dict(_delete_=True, type='mmsparse.RefinementVisualizationHook'))
visualizer = dict(type='mmsparse.RefinementVisualizer')
val_evaluator = [
    dict(type='IoUMetric', iou_metrics=['mIoU']),
    dict(type='mmsparse.LowResIoUMetric'),
    dict(type='mmsparse.SelectorMetric'),
    dict(type='mmsparse.IoUBySizeMetric'),
]
test_evaluator = val_evaluator
