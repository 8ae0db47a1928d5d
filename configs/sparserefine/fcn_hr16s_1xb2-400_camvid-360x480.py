# Low-resolution baseline on CamVid: half-size pictures, scored at full size.
_base_ = [
    '../_base_/models/fcn_hr16s.py', '../_base_/datasets/camvid-720x960.py',
    '../_base_/default_runtime.py', '../_base_/schedules/schedule_400.py',
]
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale_factor=0.5),
    dict(type='RandomCrop', crop_size=_base_.crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='Resize', scale_factor=0.5),
    # after Resize: ground truth keeps its full size
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
