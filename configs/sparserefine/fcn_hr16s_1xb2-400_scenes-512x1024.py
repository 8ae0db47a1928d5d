# Low-resolution baseline: the network sees half-size pictures and is scored at full size.
_base_ = [
    '../_base_/models/fcn_hr16s.py', '../_base_/datasets/scenes-1024x2048.py',
    '../_base_/default_runtime.py', '../_base_/schedules/schedule_400.py',
]
# The classes that cover few pixels weigh more, or so short a training would never predict them.
class_weight = [1., 1., 1., 1., 1., 3., 3., 3., 3., 2., 3.]
model = dict(decode_head=dict(loss_decode=dict(class_weight=class_weight)))
crop_size = (512, 128)
train_pipeline = [
    dict(type='mmsparse.RenderScene', cache=64),
    dict(type='Resize', scale_factor=0.5),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='Resize', scale_factor=0.5),
    # after Resize: ground truth keeps its full size
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
