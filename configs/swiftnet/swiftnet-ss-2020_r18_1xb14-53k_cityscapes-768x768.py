# The single-scale model of the 2020 release, exactly: taps after the ReLU, color statistics of
# Cityscapes, which also fill what a crop pads.
_base_ = './swiftnet-ss_r18_1xb14-53k_cityscapes-768x768.py'
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmsparse.RandomSquareCropAndScale', size=768, pad_val=(72, 82, 73)),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
model = dict(
    data_preprocessor=dict(mean=[73.15, 82.90, 72.3], std=[47.67, 48.49, 47.73]),
    backbone=dict(tap='post'))
