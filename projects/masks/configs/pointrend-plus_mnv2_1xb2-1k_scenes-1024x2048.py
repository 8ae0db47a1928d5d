# As mask-rcnn-plus_mnv2_1xb2-1k_scenes-1024x2048, with another mask head.
_base_ = './mask-rcnn-plus_mnv2_1xb2-1k_scenes-1024x2048.py'
model = dict(roi_head=dict(
    mask_roi_extractor=dict(
        _delete_=True, type='GenericRoIExtractor', aggregation='concat',
        roi_layer=dict(type='SimpleRoIAlign', output_size=14), out_channels=128,
        featmap_strides=[4]),
    mask_head=dict(
        type='mmsparse.QueryPointHead',
        point_head=dict(
            type='MaskPointHead', num_fcs=3, in_channels=128, fc_channels=128,
            num_classes={{_base_.num_classes}}, coarse_pred_each_layer=True,
            loss_point=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0)))))
