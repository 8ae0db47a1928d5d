_base_ = './effseg_mask-rcnn_r50_fpn_1x_cityscapes.py'
# the base starts from COCO's weights of another depth
load_from = None
model = dict(backbone=dict(
    depth=101,
    init_cfg=dict(_delete_=True, type='Pretrained', checkpoint='torchvision://resnet101')))
