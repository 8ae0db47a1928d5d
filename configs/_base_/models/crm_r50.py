# The encoder starts from ImageNet's first ResNet-50 of torchvision.
_base_ = './crm_refiner.py'
model = dict(
    _base_.refiner,
    backbone=dict(
        _base_.refiner.backbone,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.pytorch.org/models/resnet50-19c8e357.pth')))
