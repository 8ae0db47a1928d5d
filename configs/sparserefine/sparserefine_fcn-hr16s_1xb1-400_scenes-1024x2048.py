# SparseRefine on the frozen low-resolution baseline; see tools/demo.py.
_base_ = [
    '../_base_/models/fcn_hr16s.py', '../_base_/datasets/scenes-1024x2048.py',
    '../_base_/default_runtime.py', '../_base_/schedules/schedule_400.py',
    '../_base_/models/sparserefine.py',
]
# What you may want to change
alpha = 0.8  # entropy from which a pixel is refined, in nats
low_res_scale = 0.5  # of the image's size, what the segmentor sees
stages = (16, 32, 64)  # channels of the refiner's stages
segmentor_checkpoint = 'work_dirs/fcn_hr16s_1xb2-400_scenes-512x1024/iter_400.pth'

crop_size = (1024, 256)  # what the low-resolution model was trained on, (512, 128), at full size
train_pipeline = [
    dict(type='mmsparse.RenderScene', cache=64),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(lr=3e-3))
sparserefine = _base_.sparserefine
sparserefine.selector.alpha = alpha
sparserefine.decode_head.extractor.channels = stages
model = dict(
    sparserefine,
    segmentor=_base_.model,
    segmentor_checkpoint=segmentor_checkpoint,
    low_res_scale=low_res_scale,
    upsample='nearest')
default_hooks = dict(
    visualization=dict(_delete_=True, type='mmsparse.RefinementVisualizationHook'))
visualizer = dict(type='mmsparse.RefinementVisualizer')
val_evaluator = [
    dict(type='IoUMetric', iou_metrics=['mIoU']),
    dict(type='mmsparse.LowResIoUMetric'),
    dict(type='mmsparse.SelectorMetric'),
    dict(type='mmsparse.IoUBySizeMetric'),
]
test_evaluator = val_evaluator
