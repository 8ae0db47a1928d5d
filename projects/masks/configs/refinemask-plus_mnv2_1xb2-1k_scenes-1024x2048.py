# As mask-rcnn-plus_mnv2_1xb2-1k_scenes-1024x2048, with another mask head.
_base_ = './mask-rcnn-plus_mnv2_1xb2-1k_scenes-1024x2048.py'
model = dict(roi_head=dict(mask_head=dict(
    _delete_=True, type='mmsparse.QueryRefineMaskHead', query_channels=256,
    head=dict(type='mmsparse.RefineMaskHead', num_classes={{_base_.num_classes}}, in_channels=128))))
