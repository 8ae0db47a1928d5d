# FCN on HRNetV2-W48, as in mmseg's configs named fcn_hr48.
_base_ = 'mmseg::_base_/models/fcn_hr18.py'
channels = (48, 96, 192, 384)
model = dict(
    pretrained='open-mmlab://msra/hrnetv2_w48',
    backbone=dict(
        extra=dict(
            stage2=dict(num_channels=channels[:2]),
            stage3=dict(num_channels=channels[:3]),
            stage4=dict(num_channels=channels))),
    decode_head=dict(in_channels=channels, channels=sum(channels)))
