# SparseRefine on the frozen low-resolution baseline; see projects/camvid.
_base_ = [
    '../_base_/models/fcn_hr16s.py', '../_base_/datasets/camvid-720x960.py',
    '../_base_/default_runtime.py', '../_base_/schedules/schedule_400.py',
    '../_base_/models/sparserefine.py',
]
# What you may want to change
alpha = 1.0  # entropy from which a pixel is refined, in nats
low_res_scale = 0.5  # of the image's size, what the segmentor sees
stages = (16, 32, 64)  # channels of the refiner's stages
segmentor_checkpoint = 'work_dirs/fcn_hr16s_1xb2-400_camvid-360x480/iter_400.pth'

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
