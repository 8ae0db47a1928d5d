# The detector of all heads and the schedule: a Mask R-CNN++ on a MobileNetV2. Its mask head alone learns,
# 1,000 iterations, on the weights of a trained detector without masks: faster-rcnn_mnv2_*.py. With so few
# pictures the neck is normalized and boxes are the same for all classes; without both, 1,500 iterations of
# two pictures left a detector with a box AP of 1.5 % on Car-Parts.
_base_ = '../../../coco128/configs/mask-rcnn-plus_mnv2_coco128-320.py'
max_iters = 1000
model = dict(
    neck=dict(norm_cfg=dict(type='GN', num_groups=16)),
    roi_head=dict(bbox_head=dict(reg_class_agnostic=True)),
    train_cfg=dict(
        rpn_proposal=dict(max_per_img=500),
        rcnn=dict(sampler=dict(num=64))),  # at most 16 masks of a picture
    test_cfg=dict(rpn=dict(max_per_img=500), rcnn=dict(encode_masks=True)))
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0, custom_keys=dict(backbone=dict(lr_mult=0.25))),
    clip_grad=dict(max_norm=10))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=50, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=50, end=max_iters, eta_min=1e-6, by_epoch=False),
]
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(by_epoch=False, interval=200, max_keep_ckpts=1))
log_processor = dict(by_epoch=False)
custom_hooks = [dict(
    type='mmsparse.FreezeHook', modules=['backbone', 'neck', 'rpn_head', 'roi_head.bbox_head'])]
env_cfg = dict(cudnn_benchmark=False, dist_cfg=dict(backend='gloo'))
randomness = dict(seed=0)
