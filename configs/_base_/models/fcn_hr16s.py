# FCN on a narrow, short HRNet: 16 channels where HRNetV2-W18-Small has 18, one block where it has
# two and one module per stage. It learns from scratch in minutes on a CPU.
_base_ = 'mmseg::_base_/models/fcn_hr18.py'
norm_cfg = dict(type='BN', requires_grad=True)  # one process, no GPU: nothing to synchronize
data_preprocessor = dict(size_divisor=32)  # takes any crop; the stride of the network
channels = (16, 32, 64, 128)
model = dict(
    data_preprocessor=data_preprocessor,
    pretrained=None,
    backbone=dict(
        norm_cfg=norm_cfg,
        extra=dict(
            stage1=dict(num_blocks=(1, )),
            stage2=dict(num_blocks=(1, ) * 2, num_channels=channels[:2]),
            stage3=dict(num_modules=1, num_blocks=(1, ) * 3, num_channels=channels[:3]),
            stage4=dict(num_modules=1, num_blocks=(1, ) * 4, num_channels=channels))),
    decode_head=dict(
        in_channels=channels, channels=sum(channels), num_classes=11, norm_cfg=norm_cfg))
