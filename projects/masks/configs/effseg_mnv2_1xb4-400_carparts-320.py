# As mask-rcnn-plus_mnv2_1xb4-400_carparts-320, with another mask head. Fewer objects than the paper's
# seventy share the budget of a picture, 16 in training.
_base_ = './mask-rcnn-plus_mnv2_1xb4-400_carparts-320.py'
model = dict(roi_head=dict(mask_head=dict(
    _delete_=True, type='mmsparse.EffSegMaskHead', in_channels=128, query_channels=256,
    budget=dict(per_image=5000))))
