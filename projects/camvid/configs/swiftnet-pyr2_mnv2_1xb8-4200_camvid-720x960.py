# The pyramid of two levels with the boundary-aware loss, else the longer training of the single scale.
_base_ = '../../../configs/swiftnet/swiftnet-ss_mnv2_1xb8-4200_camvid-720x960.py'
train_pipeline = [
    *_base_.train_pipeline[:-1],
    dict(type='mmsparse.LabelBoundaryWeight'),
    dict(type='mmsparse.PackWeightedSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmsparse.SwiftNetPyramidBackbone',
        levels=2,
        encoder={{_base_.model.backbone}}),
    neck=dict(
        _delete_=True,
        type='mmsparse.PyramidFusionNeck',
        levels=2,
        in_channels=(24, 32, 96, 320)),
    decode_head=dict(loss_decode=dict(_delete_=True, type='mmsparse.BoundaryAwareLoss')))
