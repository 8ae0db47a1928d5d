# Mask R-CNN++ of Table 3.
_base_ = './fqdet_r50_fpn_1x_coco.py'
model = dict(
    roi_head=dict(
        mask_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0), out_channels=256,
            featmap_strides=[4, 8, 16, 32]),
        mask_head=dict(type='mmsparse.QueryMaskHead', head=dict(
            type='FCNMaskHead', num_convs=4, in_channels=256, conv_out_channels=256, num_classes=80,
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0)))),
    test_cfg=dict(rcnn=dict(mask_thr_binary=0.5)))
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator
