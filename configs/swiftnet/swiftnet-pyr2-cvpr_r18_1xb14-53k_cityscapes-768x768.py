# The pyramid of two levels as in the CVPR release: one set of norms, 3x3 bottlenecks and classifier,
# plain cross entropy; the paper: 75.45 mIoU.
_base_ = './swiftnet-ss_r18_1xb14-53k_cityscapes-768x768.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmsparse.SwiftNetPyramidBackbone',
        levels=2,
        per_level_norm=False,
        encoder={{_base_.model.backbone}}),
    neck=dict(
        _delete_=True,
        type='mmsparse.PyramidFusionNeck',
        levels=2,
        bottleneck='brc3',
        in_channels=(64, 128, 256, 512)),
    decode_head=dict(kernel_size=3, bias=False))
