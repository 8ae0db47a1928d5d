# mmdet's Cityscapes with instance masks, repeated 8 times an epoch, for 8 epochs, in place of a COCO
# config's data and schedule. The pieces stand in a variable of their own, because the configs beside
# this file in `_base_` own the plain names.
cityscapes = dict(
    train_dataloader=dict(
        batch_size=1,
        dataset=dict(_delete_=True, type='RepeatDataset', times=8, dataset=dict(
            type='CityscapesDataset', data_root='data/cityscapes/',
            ann_file='annotations/instancesonly_filtered_gtFine_train.json',
            data_prefix=dict(img='leftImg8bit/train/'),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=[
                dict(type='LoadImageFromFile', backend_args=None),
                dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
                dict(type='RandomResize', scale=[(2048, 800), (2048, 1024)], keep_ratio=True),
                dict(type='RandomFlip', prob=0.5),
                dict(type='PackDetInputs'),
            ]))),
    val_dataloader=dict(dataset=dict(
        type='CityscapesDataset', data_root='data/cityscapes/',
        ann_file='annotations/instancesonly_filtered_gtFine_val.json',
        data_prefix=dict(_delete_=True, img='leftImg8bit/val/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=[
            dict(type='LoadImageFromFile', backend_args=None),
            dict(type='Resize', scale=(2048, 1024), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='PackDetInputs', meta_keys=(
                'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
        ])),
    val_evaluator=dict(
        ann_file='data/cityscapes/annotations/instancesonly_filtered_gtFine_val.json'),
    train_cfg=dict(max_epochs=8),
    param_scheduler=[
        dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
        dict(type='MultiStepLR', begin=0, end=8, by_epoch=True, milestones=[7], gamma=0.1),
    ])
