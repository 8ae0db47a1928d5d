# A small Mask R-CNN++ on a MobileNetV2 with ImageNet's weights, for by_heart.py. For the weights see
# projects/camvid/mobilenetv2.py, for the annotations prepare.py.
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
        mask_head=dict(query_channels=256, head=dict(in_channels=128, conv_out_channels=128))))
data_root = '{{$MMSPARSE_DATA:data}}/coco128/'
ann_file = '{{fileDirname}}/../../../work_dirs/coco128/instances.json'
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),  # boxes and masks too
    dict(type='PackDetInputs', meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
val_dataloader = dict(batch_size=8, num_workers=0, persistent_workers=False, dataset=dict(
    data_root=data_root, ann_file=ann_file, data_prefix=dict(img='train2017/'),
    pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='mmsparse.BoundaryCocoMetric', ann_file=ann_file, metric=['bbox', 'segm', 'boundary'])
test_evaluator = val_evaluator
