# RefineMask++ of Table 3 on Mask R-CNN.
_base_ = './mask-rcnn-plus_r50_fpn_1x_coco.py'
model = dict(roi_head=dict(mask_head=dict(
    _delete_=True, type='mmsparse.QueryRefineMaskHead', query_channels=1024,
    head=dict(type='mmsparse.RefineMaskHead', num_classes=80))))
