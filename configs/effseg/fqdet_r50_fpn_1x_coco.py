# FQDet alone, on levels P2 to P7: the detector under EffSeg's Tables 3 to 5. Two GPUs, an image each.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
strides = [4, 8, 16, 32, 64, 128]
focal = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
model = dict(
    type='TwoStageDetector',
    backbone=dict(norm_cfg=dict(type='BN', requires_grad=False)),
    neck=dict(num_outs=6, add_extra_convs='on_lateral', relu_before_extra_convs=True),
    rpn_head=dict(
        _delete_=True, type='mmsparse.FQDetRPNHead', loss_cls=focal,
        anchor_generator=dict(
            type='AnchorGenerator', strides=strides, ratios=[0.5, 1.0, 2.0], octave_base_scale=4,
            scales_per_octave=3, center_offset=0.5, scale_major=False)),  # the authors' order
    roi_head=dict(
        _delete_=True, type='mmsparse.FQDetRoIHead',
        bbox_head=dict(
            type='mmsparse.FQDetBBoxHead', strides=strides,
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'), loss_cls=focal,
            loss_bbox=dict(type='L1Loss', loss_weight=1.0))),
    train_cfg=dict(_delete_=True, rpn=None, rcnn=None, rpn_proposal=None),
    test_cfg=dict(_delete_=True, rpn=None, rcnn=dict(
        nms_pre=1000, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)))

# DETR's augmentation
scales = [(short, 1333) for short in range(480, 801, 32)]
resize = dict(type='RandomChoiceResize', scales=scales, keep_ratio=True)
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args={{_base_.backend_args}}),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomChoice', transforms=[
        [resize],
        [dict(type='RandomChoiceResize', scales=[(400, 4200), (500, 4200), (600, 4200)],
              keep_ratio=True),
         dict(type='RandomCrop', crop_type='absolute_range', crop_size=(384, 600),
              allow_negative_crop=True),
         resize]]),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys=dict(
        backbone=dict(lr_mult=0.1), sampling_offsets=dict(lr_mult=0.1))))
param_scheduler = [
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[9], gamma=0.1)]
auto_scale_lr = dict(base_batch_size=2)
