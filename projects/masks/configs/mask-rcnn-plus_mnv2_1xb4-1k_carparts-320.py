# Eighteen parts of cars (Pasupa et al. 2021): `carparts` below MMSPARSE_DATA, 300 photographs to learn
# from, 100 to score. The other heads are in the configs beside this one. A run and its figures:
#
#     export MMSPARSE_DATA=/path/to/data PYTHONPATH=.
#     python tools/train.py projects/masks/configs/mask-rcnn-plus_mnv2_1xb4-1k_carparts-320.py \
#         --work-dir work_dirs/masks/carparts/mask-rcnn-plus-0 --cfg-options randomness.seed=0
_base_ = './_base_/mask-rcnn-plus_mnv2.py'
load_from = 'work_dirs/masks/carparts/faster-rcnn/iter_2000.pth'
classes = (
    'back_bumper', 'back_glass', 'back_left_door', 'back_left_light', 'back_right_door',
    'back_right_light', 'front_bumper', 'front_glass', 'front_left_door', 'front_left_light',
    'front_right_door', 'front_right_light', 'hood', 'left_mirror', 'right_mirror', 'tailgate',
    'trunk', 'wheel')
num_classes = len(classes)
model = dict(roi_head=dict(
    bbox_head=dict(num_classes=num_classes),
    mask_head=dict(head=dict(num_classes=num_classes))))
data_root = '{{$MMSPARSE_DATA:data}}/carparts/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    # never flipped: left and right parts are different classes
    dict(type='RandomChoiceResize', scales=[(288, 288), (320, 320), (352, 352)], keep_ratio=True),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    _delete_=True,
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset', metainfo=dict(classes=classes), data_root=data_root,
        ann_file='train.json', data_prefix=dict(img='train/'), pipeline=train_pipeline))
val_dataloader = dict(
    _delete_=True,
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset', metainfo=dict(classes=classes), data_root=data_root,
        ann_file='val.json', data_prefix=dict(img='val/'), pipeline=test_pipeline, test_mode=True))
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True, type='mmsparse.BoundaryCocoMetric', ann_file=data_root + 'val.json',
    metric=['bbox', 'segm', 'boundary'])
test_evaluator = val_evaluator
