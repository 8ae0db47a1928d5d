# The pyramid of the CVPR release (2019), exactly: three levels, taps after the ReLU, one set of norms,
# 3x3 bottlenecks and classifier; plain cross entropy.
_base_ = './swiftnet-ss-cvpr_r18_1xb14-53k_cityscapes-768x768.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmsparse.SwiftNetPyramidBackbone',
        levels=3,
        per_level_norm=False,
        encoder={{_base_.model.backbone}}),
    neck=dict(
        _delete_=True,
        type='mmsparse.PyramidFusionNeck',
        levels=3,
        bottleneck='brc3',
        in_channels=(64, 128, 256, 512)))
