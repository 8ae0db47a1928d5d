# CRM (CVPR 2022), 9.3 M parameters, as a part of other models.
refiner = dict(
    type='mmsparse.CRMRefiner',
    data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size_divisor=1),  # crops are of one size; mmseg wants to be told
    backbone=dict(type='mmsparse.CRMResNet', depth=50),
    neck=dict(type='mmsparse.CRMFusionNeck'),
    head=dict(type='mmsparse.ImplicitPointHead'))
