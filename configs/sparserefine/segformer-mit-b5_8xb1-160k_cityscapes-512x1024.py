# Low-resolution baseline: SegFormer-B5, trained for half-size Cityscapes and scored at full size.
_base_ = [
    'mmseg::segformer/segformer_mit-b5_8xb1-160k_cityscapes-1024x1024.py',
    '../_base_/low_res_cityscapes.py',
]
# The stock crop, halved; one pass over an image that fits into it, where the stock config slides.
crop_size = (512, 512)
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(1024, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
model = dict(
    data_preprocessor=dict(size=crop_size), test_cfg=dict(_delete_=True, mode='whole'))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **_base_.low_res.dataset))
val_dataloader = dict(
    dataset=dict(pipeline=_base_.low_res.test_pipeline, **_base_.low_res.dataset))
test_dataloader = val_dataloader
val_evaluator = _base_.low_res.evaluator
test_evaluator = val_evaluator
