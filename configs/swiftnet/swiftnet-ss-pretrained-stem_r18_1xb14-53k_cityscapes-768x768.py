# ImageNet weights up to here, the rest from random weights at the full rate; the paper: 69.21 mIoU
# (supplement Table 3).
_base_ = './swiftnet-ss_r18_1xb14-53k_cityscapes-768x768.py'
pretrained = ['backbone.conv1', 'backbone.bn1']
model = dict(backbone=dict(pretrained_parts=['stem']))
optim_wrapper = dict(
    paramwise_cfg=dict(
        _delete_=True,
        custom_keys={key: dict(lr_mult=0.25, decay_mult=0.25) for key in pretrained}))
