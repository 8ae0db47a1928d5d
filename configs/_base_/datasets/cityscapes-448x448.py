# Cityscapes at half resolution: random squares of 224 to 896 pixels of the half-size picture, resized to
# 448; scored at full size.
_base_ = './cityscapes-768x768.py'
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    # cut from the full picture: halving labels by nearest neighbor would move them first
    dict(type='mmsparse.RandomSquareCropAndScale', size=448, ratio_range=(1.0, 4.0)),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='Resize', scale_factor=0.5, interpolation='bicubic', backend='pillow'),
    # after Resize: ground truth keeps its full size
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
