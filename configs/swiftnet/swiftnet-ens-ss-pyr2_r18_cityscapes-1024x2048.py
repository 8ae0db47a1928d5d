# Single scale and pyramid together; the paper: 77.12 mIoU on val (supplement Table 4). For testing:
# the members' weights are those of their trainings: `mim run mmsparse test CONFIG`.
_base_ = './swiftnet-ss_r18_1xb14-53k_cityscapes-768x768.py'
single = _base_.model
pyramid = dict(
    single,
    backbone=dict(
        type='mmsparse.SwiftNetPyramidBackbone',
        levels=2,
        per_level_norm=False,
        encoder=dict(single.backbone, tap='post')),
    neck=dict(
        type='mmsparse.PyramidFusionNeck',
        levels=2,
        bottleneck='brc3',
        in_channels=(64, 128, 256, 512)),
    decode_head=dict(single.decode_head, kernel_size=3, bias=False))
members = {'swiftnet-ss_r18': single, 'swiftnet-pyr2-cvpr_r18': pyramid}
model = dict(
    _delete_=True,
    type='mmsparse.SegEnsemble',
    segmentors=[
        dict(member, init_cfg=dict(
            type='Pretrained', checkpoint=f'work_dirs/{name}_1xb14-53k_cityscapes-768x768/iter_53000.pth'))
        for name, member in members.items()])
