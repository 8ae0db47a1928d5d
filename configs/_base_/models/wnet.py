# W-Net (Galdran et al., 2020) for three classes; colors from 0 to 1. Losses on the scores of both
# of its U-Nets.
num_classes = 3
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[0.0] * 3, std=[255.0] * 3, bgr_to_rgb=True, pad_val=0,
        seg_pad_val=255, size_divisor=8, test_cfg=dict(size_divisor=8)),
    backbone=dict(type='mmsparse.WNet', num_classes=num_classes),
    decode_head=dict(
        type='FCNHead', num_convs=0, concat_input=False, in_channels=8, channels=8, in_index=0,
        dropout_ratio=0, num_classes=num_classes,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)),
    auxiliary_head=dict(
        type='mmsparse.ScoresHead', num_classes=num_classes,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
