# Specialize and Fuse (I) on half-size pictures: SwiftNet's MobileNetV2, ImageNet weights, and its
# ladder give the stride-4 features; 128 channels throughout. Six squares an iteration, for time.
_base_ = './swiftnet-ss_mnv2_1xb8-600_camvid-360x480.py'
model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=32)),
    decode_head=dict(
        _delete_=True,
        type='mmsparse.SpecializeFuseHead',
        in_channels=128,
        in_index=-1,
        num_classes=11))
train_dataloader = dict(batch_size=6)
