_base_ = './effseg_queryinst_r50_fpn_1x_cityscapes.py'
model = dict(backbone=dict(
    depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
