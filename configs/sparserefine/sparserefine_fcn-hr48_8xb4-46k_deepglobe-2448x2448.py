# SparseRefine on DeepGlobe Land Cover. alpha and schedule are those of Cityscapes: the paper's for
# this data set are not known to us. Calibrate alpha first.
_base_ = [
    './fcn-hr48_4xb4-40k_deepglobe-1224x1224.py', '../_base_/models/sparserefine.py',
    '../_base_/refine_46k.py',
]
# What you may want to change
alpha = 0.3  # entropy from which a pixel is refined, in nats
low_res_scale = 0.5  # of the image's size, what the segmentor sees
stages = (32, 64, 128, 256, 512, 1024)  # channels of the refiner's stages
segmentor_checkpoint = 'work_dirs/fcn-hr48_4xb4-40k_deepglobe-1224x1224/iter_40000.pth'

sparserefine = _base_.sparserefine
sparserefine.selector.alpha = alpha
sparserefine.decode_head.extractor.channels = stages
model = dict(
    sparserefine,
    segmentor=_base_.model,
    segmentor_checkpoint=segmentor_checkpoint,
    data_preprocessor=dict(_base_.model.data_preprocessor, size=_base_.crop_size),
    low_res_scale=low_res_scale)
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = _base_.refine.optim_wrapper
param_scheduler = _base_.refine.param_scheduler
train_cfg = _base_.refine.train_cfg
default_hooks = _base_.refine.default_hooks
visualizer = _base_.refine.visualizer
val_evaluator = _base_.refine.evaluator
test_evaluator = val_evaluator
randomness = dict(seed=2023)
