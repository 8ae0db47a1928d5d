# Cars, pedestrians, traffic signs and traffic lights of the built-in scenes, whose outlines are exact to
# the pixel. Learned on crops, scored on whole pictures; objects of fewer than 32x32 pixels are
# ignored, boundaries are as wide as Cityscapes' are. The other heads are in the configs beside this
# one. A run and its figures:
#
#     PYTHONPATH=. python tools/train.py \
#         projects/masks/configs/mask-rcnn-plus_mnv2_1xb2-1k_scenes-1024x2048.py \
#         --work-dir work_dirs/masks/scenes/mask-rcnn-plus-0 --cfg-options randomness.seed=0
_base_ = './_base_/mask-rcnn-plus_mnv2.py'
load_from = 'work_dirs/masks/scenes/faster-rcnn/iter_1000.pth'
num_classes = 4
size = (1024, 2048)
crop_size = (512, 512)
min_area = 32 * 32
model = dict(roi_head=dict(
    bbox_head=dict(num_classes=num_classes),
    mask_head=dict(head=dict(num_classes=num_classes))))
train_pipeline = [
    # All training scenes stay in memory (0.8 GB, labels included).
    dict(type='mmsparse.RenderScene', cache=100),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomCrop', crop_size=crop_size, recompute_bbox=True),
    # what of an object lies outside the crop may leave it a box, but no pixel
    dict(type='FilterAnnotations', min_gt_bbox_wh=(4, 4)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='mmsparse.RenderScene'),
    dict(type='Resize', scale_factor=1.0),  # the model asks for its factor
    dict(type='PackDetInputs', meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances')),
]
train_dataloader = dict(
    _delete_=True,
    batch_size=2,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='mmsparse.SceneInstanceDataset', length=100, size=size, seed=0, min_area=min_area,
        pipeline=train_pipeline))
val_dataloader = dict(
    _delete_=True,
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmsparse.SceneInstanceDataset', length=40, size=size, seed=1, min_area=min_area,
        pipeline=test_pipeline, test_mode=True))
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True, type='mmsparse.BoundaryCocoMetric', metric=['bbox', 'segm', 'boundary'],
    dilation_ratio=0.005, classwise=True)
test_evaluator = val_evaluator
