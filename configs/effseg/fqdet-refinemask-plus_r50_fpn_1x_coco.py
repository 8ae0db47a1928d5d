# RefineMask++ of Table 3.
_base_ = './fqdet-mask-rcnn-plus_r50_fpn_1x_coco.py'
model = dict(roi_head=dict(mask_head=dict(
    _delete_=True, type='mmsparse.QueryRefineMaskHead',
    head=dict(type='mmsparse.RefineMaskHead', num_classes=80))))
