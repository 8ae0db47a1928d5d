# The pyramid of the 2020 release, exactly, with three levels: color statistics of Cityscapes, levels
# whose size is rounded down; taps before the ReLU.
_base_ = './swiftnet-pyr3_r18_1xb14-53k_cityscapes-768x768.py'
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmsparse.RandomSquareCropAndScale', size=768, pad_val=(72, 82, 73)),
    dict(type='mmsparse.LabelBoundaryWeight'),
    dict(type='mmsparse.PackWeightedSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
model = dict(
    data_preprocessor=dict(mean=[73.15, 82.90, 72.3], std=[47.67, 48.49, 47.73]),
    backbone=dict(rounding='floor'))
