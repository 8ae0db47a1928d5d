# PointRend++ of Table 3.
_base_ = './fqdet-mask-rcnn-plus_r50_fpn_1x_coco.py'
model = dict(roi_head=dict(
    mask_roi_extractor=dict(
        _delete_=True, type='GenericRoIExtractor', aggregation='concat',
        roi_layer=dict(type='SimpleRoIAlign', output_size=14), out_channels=256,
        featmap_strides=[4]),
    mask_head=dict(
        type='mmsparse.QueryPointHead',
        point_head=dict(
            type='MaskPointHead', num_fcs=3, in_channels=256, fc_channels=256, num_classes=80,
            coarse_pred_each_layer=True,
            loss_point=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0)))))
