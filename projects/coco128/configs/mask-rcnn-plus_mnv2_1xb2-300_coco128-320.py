# A small Mask R-CNN++ on a MobileNetV2 with ImageNet's weights, for learning eight images by heart on
# a CPU. For the weights see projects/camvid/mobilenetv2.py, for the annotations prepare.py.
_base_ = '../../../configs/effseg/mask-rcnn-plus_r50_fpn_1x_coco.py'
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        _delete_=True, type='MobileNetV2', out_indices=(1, 2, 4, 6), norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/mobilenetv2.pth')),
    neck=dict(in_channels=[24, 32, 96, 320], out_channels=128),
    rpn_head=dict(in_channels=128, feat_channels=128),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=128),
        bbox_head=dict(in_channels=128, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=128),
        mask_head=dict(query_channels=256, head=dict(in_channels=128, conv_out_channels=128))),
    train_cfg=dict(rpn_proposal=dict(max_per_img=200), rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(max_per_img=200)))
data_root = '{{$MMSPARSE_DATA:data}}/coco128/'
ann_file = '{{fileDirname}}/../../../work_dirs/coco128/instances.json'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=2, num_workers=1, sampler=dict(type='InfiniteSampler'),
    dataset=dict(data_root=data_root, ann_file=ann_file, data_prefix=dict(img='train2017/'),
                 pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(
    data_root=data_root, ann_file=ann_file, data_prefix=dict(img='train2017/'),
    pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='mmsparse.BoundaryCocoMetric', ann_file=ann_file, metric=['bbox', 'segm', 'boundary'])
test_evaluator = val_evaluator
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=5e-4, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.25))),
    clip_grad=dict(max_norm=5))
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=300, val_interval=300)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=300, eta_min=1e-6, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=300))
log_processor = dict(by_epoch=False)
env_cfg = dict(cudnn_benchmark=False)
randomness = dict(seed=0)
