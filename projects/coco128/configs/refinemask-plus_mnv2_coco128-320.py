# As mask-rcnn-plus_mnv2_coco128-320, with another mask head.
_base_ = './mask-rcnn-plus_mnv2_coco128-320.py'
model = dict(roi_head=dict(mask_head=dict(
    _delete_=True, type='mmsparse.QueryRefineMaskHead', query_channels=256,
    head=dict(type='mmsparse.RefineMaskHead', num_classes=80, in_channels=128))))
