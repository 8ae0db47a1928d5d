# SparseRefine (ECCV 2024) on a frozen low-resolution model of 512x1024. alpha and stages are the
# paper's, supplement Table 1: a recall of 84.7 % at 13.9 % of the pixels.
_base_ = [
    './segformer-mit-b5_8xb1-160k_cityscapes-512x1024.py', '../_base_/models/sparserefine.py',
    '../_base_/full_size_cityscapes.py', '../_base_/refine_46k.py',
]
# What you may want to change
alpha = 0.1  # entropy from which a pixel is refined, in nats
low_res_scale = 0.5  # of the image's size, what the segmentor sees
stages = (32, 64, 128, 256, 512, 1024)  # channels of the refiner's stages
segmentor_checkpoint = 'work_dirs/segformer-mit-b5_8xb1-160k_cityscapes-512x1024/iter_160000.pth'

sparserefine = _base_.sparserefine
sparserefine.selector.alpha = alpha
sparserefine.decode_head.extractor.channels = stages
model = dict(
    sparserefine,
    segmentor=_base_.model,
    segmentor_checkpoint=segmentor_checkpoint,
    data_preprocessor=_base_.full_size.data_preprocessor,
    low_res_scale=low_res_scale)
train_dataloader = _base_.full_size.train_dataloader
val_dataloader = _base_.full_size.val_dataloader
test_dataloader = val_dataloader
optim_wrapper = _base_.refine.optim_wrapper
param_scheduler = _base_.refine.param_scheduler
train_cfg = _base_.refine.train_cfg
default_hooks = _base_.refine.default_hooks
visualizer = _base_.refine.visualizer
val_evaluator = _base_.refine.evaluator
test_evaluator = val_evaluator
randomness = dict(seed=2023)
