# The released W-Net on photographs of about a fifth of the pixels; tools/model_converters/wnet.py
# renames its weights. The field of view is squeezed into 1024x1024 as in its training: 3263 of the 3504
# columns become 1024, all of them 1104.
_base_ = [
    '../_base_/models/wnet.py', '../_base_/datasets/hrf-2336x3504.py', '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_400.py',
]
model = dict(backbone=dict(num_classes=4), auxiliary_head=None)
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='Resize', scale=(1104, 1024), keep_ratio=False),
    # after it: scored at full size
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
