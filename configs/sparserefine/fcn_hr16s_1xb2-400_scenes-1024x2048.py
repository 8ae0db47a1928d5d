# Dense high-resolution baseline: network, schedule, batch and crop of the low-resolution one, on
# full-size pictures.
_base_ = './fcn_hr16s_1xb2-400_scenes-512x1024.py'
train_pipeline = [
    dict(type='mmsparse.RenderScene', cache=64),
    dict(type='RandomCrop', crop_size=_base_.crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
