# The detector and the schedule of all heads: a Mask R-CNN++ on a MobileNetV2 with ImageNet's weights
# (work_dirs/mobilenetv2.pth, see projects/camvid/mobilenetv2.py), 3000 iterations of two pictures.
_base_ = '../../../coco128/configs/mask-rcnn-plus_mnv2_coco128-320.py'
max_iters = 3000
model = dict(
    train_cfg=dict(
        rpn_proposal=dict(max_per_img=500),
        rcnn=dict(sampler=dict(num=64))),  # at most 16 masks of a picture
    test_cfg=dict(rpn=dict(max_per_img=500), rcnn=dict(encode_masks=True)))
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-4, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0, custom_keys=dict(backbone=dict(lr_mult=0.25))),
    clip_grad=dict(max_norm=10))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=200, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=200, end=max_iters, eta_min=1e-6, by_epoch=False),
]
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(by_epoch=False, interval=500, max_keep_ckpts=1))
log_processor = dict(by_epoch=False)
env_cfg = dict(cudnn_benchmark=False, dist_cfg=dict(backend='gloo'))
randomness = dict(seed=0)
