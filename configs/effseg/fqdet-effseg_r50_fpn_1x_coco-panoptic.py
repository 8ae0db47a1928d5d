# EffSeg's masks for things and Panoptic FPN's head for stuff, on FQDet.
_base_ = './fqdet-effseg_r50_fpn_1x_coco.py'
model = dict(
    type='PanopticFPN',
    data_preprocessor=dict(pad_seg=True, seg_pad_value=255),
    semantic_head=dict(
        type='PanopticFPNHead', num_things_classes=80, num_stuff_classes=53, in_channels=256,
        inner_channels=128,
        loss_seg=dict(type='CrossEntropyLoss', ignore_index=255, loss_weight=0.5)),
    panoptic_fusion_head=dict(
        type='HeuristicFusionHead', num_things_classes=80, num_stuff_classes=53),
    test_cfg=dict(
        rcnn=dict(score_thr=0.3, nms=dict(class_agnostic=True)),
        panoptic=dict(mask_overlap=0.5, stuff_area_limit=4096)))
custom_hooks = []  # mmdet's check counts stuff as classes of the detector


def panoptic(pipeline):
    return [dict(type='LoadPanopticAnnotations', backend_args=None)
            if step['type'] == 'LoadAnnotations' else step for step in pipeline]


train_dataloader = dict(dataset=dict(
    type='CocoPanopticDataset', ann_file='annotations/panoptic_train2017.json',
    data_prefix=dict(img='train2017/', seg='annotations/panoptic_train2017/'),
    pipeline=panoptic(_base_.train_pipeline)))
val_dataloader = dict(dataset=dict(
    type='CocoPanopticDataset', ann_file='annotations/panoptic_val2017.json',
    data_prefix=dict(img='val2017/', seg='annotations/panoptic_val2017/'),
    pipeline=panoptic(_base_.test_pipeline)))
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True, type='CocoPanopticMetric',
    ann_file='data/coco/annotations/panoptic_val2017.json',
    seg_prefix='data/coco/annotations/panoptic_val2017/', backend_args=None)
test_evaluator = val_evaluator
