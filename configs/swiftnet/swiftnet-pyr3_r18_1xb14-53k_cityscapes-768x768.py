# The pyramid of three levels: norms per level, plain 1x1 bottlenecks and the boundary-aware loss of the
# 2020 release (whose weights want swiftnet-pyr3-2020); the paper: 74.9 mIoU.
_base_ = './swiftnet-ss_r18_1xb14-53k_cityscapes-768x768.py'
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmsparse.RandomSquareCropAndScale', size=768),
    dict(type='mmsparse.LabelBoundaryWeight'),
    dict(type='mmsparse.PackWeightedSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmsparse.SwiftNetPyramidBackbone',
        levels=3,
        encoder={{_base_.model.backbone}}),
    neck=dict(
        _delete_=True,
        type='mmsparse.PyramidFusionNeck',
        levels=3,
        in_channels=(64, 128, 256, 512)),
    decode_head=dict(loss_decode=dict(_delete_=True, type='mmsparse.BoundaryAwareLoss')))
