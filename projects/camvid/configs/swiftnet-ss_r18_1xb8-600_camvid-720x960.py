# ResNet-18 from random weights.
_base_ = './swiftnet-ss-scratch_mnv2_1xb8-600_camvid-720x960.py'
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(_delete_=True, type='mmsparse.SwiftNetResNet', depth=18),
    neck=dict(in_channels=(64, 128, 256, 512)))
