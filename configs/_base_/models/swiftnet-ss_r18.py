# SwiftNet (CVPR 2019), single scale, ResNet-18: 11.8 M parameters, 104 GMACs at 1024x2048.
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    size_divisor=1)  # crops are of one size; mmseg wants to be told
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='mmsparse.SwiftNetResNet',
        depth=18,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),
    neck=dict(type='mmsparse.SwiftNetNeck', in_channels=(64, 128, 256, 512), channels=128),
    decode_head=dict(
        type='mmsparse.SwiftNetHead',
        in_channels=128,
        channels=128,
        in_index=-1,
        num_classes=19,
        # over labeled pixels only
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
