_base_ = './effseg_sparse-rcnn_r50_fpn_1x_coco.py'
model = dict(roi_head=dict(bbox_head=[
    dict(head, num_classes=8) for head in _base_.model.roi_head.bbox_head]))

# mmdet's Cityscapes, repeated 8 times an epoch
data_root = 'data/cityscapes/'
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=[(2048, 800), (2048, 1024)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(2048, 1024), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=1,
    dataset=dict(_delete_=True, type='RepeatDataset', times=8, dataset=dict(
        type='CityscapesDataset', data_root=data_root,
        ann_file='annotations/instancesonly_filtered_gtFine_train.json',
        data_prefix=dict(img='leftImg8bit/train/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32), pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(
    type='CityscapesDataset', data_root=data_root,
    ann_file='annotations/instancesonly_filtered_gtFine_val.json',
    data_prefix=dict(_delete_=True, img='leftImg8bit/val/'),
    filter_cfg=dict(filter_empty_gt=True, min_size=32), pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instancesonly_filtered_gtFine_val.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=8, by_epoch=True, milestones=[7], gamma=0.1),
]
