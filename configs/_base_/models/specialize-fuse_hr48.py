# Specialize and Fuse on HRNetV2-W48: 65.3 M parameters in the backbone, 7.8 M in the head.
_base_ = './fcn_hr48.py'
model = dict(
    # mmseg cuts the padding off again; training crops are multiples of the coarsest stride as well
    data_preprocessor=dict(test_cfg=dict(size_divisor=32)),
    decode_head=dict(
        _delete_=True,
        type='mmsparse.SpecializeFuseHead',
        in_channels=(48, 96, 192, 384),
        channels=512,
        num_classes=150,
        context=dict(type='mmsparse.CoarseToFineContext'),
        targets=dict(type='mmsparse.PyramidTargets'),
        loss_decode=dict(type='mmsparse.PyramidLoss'),
        fusion=dict(type='mmsparse.PyramidFusion'),
        norm_cfg=dict(type='SyncBN', requires_grad=True)))
