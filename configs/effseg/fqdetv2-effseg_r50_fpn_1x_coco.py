# EffSeg on FQDetV2: 600 queries, wider layers, no anchor code, classes that say how good a box is.
_base_ = './fqdet-effseg_r50_fpn_1x_coco.py'
model = dict(
    rpn_head=dict(num_queries=600),
    roi_head=dict(bbox_head=dict(
        ffn_channels=2048, anchor_code=False, branches='plain', soft_labels=True,
        reg_decoded_bbox=True,
        loss_cls=dict(_delete_=True, type='QualityFocalLoss', use_sigmoid=True, loss_weight=0.5),
        loss_bbox=dict(_delete_=True, type='EIoULoss', loss_weight=1.85))),
    test_cfg=dict(rcnn=dict(nms=dict(iou_threshold=0.65))))
