# Mask R-CNN++ on the frozen detector of mask-rcnn_mnv2_1xb2-400_coco128-320, so that all heads see
# the same boxes.
_base_ = './mask-rcnn_mnv2_1xb2-400_coco128-320.py'
load_from = 'work_dirs/mask-rcnn_mnv2_1xb2-400_coco128-320/iter_400.pth'
model = dict(roi_head=dict(
    type='mmsparse.EffSegRoIHead',
    mask_head=dict(
        _delete_=True, type='mmsparse.QueryMaskHead', query_channels=256,
        head={{_base_.model.roi_head.mask_head}})))
frozen = dict(lr_mult=0.0)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={
    'backbone': frozen, 'neck': frozen, 'rpn_head': frozen, 'bbox_head': frozen}))
train_cfg = dict(max_iters=200, val_interval=200)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=200, eta_min=1e-6, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=200))
