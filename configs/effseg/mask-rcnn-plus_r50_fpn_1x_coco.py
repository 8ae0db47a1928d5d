# Mask R-CNN++ of Table 3 on Mask R-CNN: the stock mask head with the query fused in.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
model = dict(roi_head=dict(
    type='mmsparse.EffSegRoIHead',
    mask_head=dict(
        _delete_=True, type='mmsparse.QueryMaskHead', query_channels=1024,
        head={{_base_.model.roi_head.mask_head}})))
