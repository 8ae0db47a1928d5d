# Dense high-resolution baseline on CamVid: network, schedule, batch and crop of the low-resolution
# one, on full-size pictures.
_base_ = [
    '../_base_/models/fcn_hr16s.py', '../_base_/datasets/camvid-720x960.py',
    '../_base_/default_runtime.py', '../_base_/schedules/schedule_400.py',
]
# The classes that cover few pixels weigh more, or so short a training would never predict them.
class_weight = [1., 1., 3., 1., 1., 1., 3., 2., 2., 3., 3.]
model = dict(decode_head=dict(loss_decode=dict(class_weight=class_weight)))
crop_size = (256, 256)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
