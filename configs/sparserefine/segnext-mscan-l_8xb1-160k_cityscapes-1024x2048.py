# Dense high-resolution baseline: SegNeXt-L on Cityscapes, for which mmseg has no config. Model and
# optimizer are those of its ADE20K config; crop, batch and iterations those of the SegNeXt paper
# (NeurIPS 2022, sec. 4).
_base_ = 'mmseg::segnext/segnext_mscan-l_1xb16-adamw-160k_ade20k-512x512.py'
crop_size = (1024, 1024)
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=r, keep_ratio=True) for r in (0.75, 1.0, 1.25)],
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
            ],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ]),
]
model = dict(
    data_preprocessor=dict(size=crop_size), decode_head=dict(num_classes=19))
data = dict(type='mmsparse.CityscapesDataset', data_root='{{$MMSPARSE_DATA:data}}/cityscapes')
train_dataloader = dict(
    batch_size=1,
    dataset=dict(
        _delete_=True,
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        pipeline=train_pipeline,
        **data))
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
        pipeline=test_pipeline,
        **data))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='IoUMetric', iou_metrics=['mIoU']),
    dict(type='mmsparse.IoUBySizeMetric'),
]
test_evaluator = val_evaluator
