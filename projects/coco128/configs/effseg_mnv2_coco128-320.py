# As mask-rcnn-plus_mnv2_coco128-320, with another mask head. About seven objects share the budget of an
# image, where some seventy share the paper's 10,000.
_base_ = './mask-rcnn-plus_mnv2_coco128-320.py'
model = dict(roi_head=dict(mask_head=dict(
    _delete_=True, type='mmsparse.EffSegMaskHead', in_channels=128, query_channels=256,
    budget=dict(per_image=1000))))
