# CRM as published: trained on crops of 36,572 objects, tested on BIG, every pixel at every scale.
_base_ = [
    '../_base_/models/crm_r50.py', '../_base_/datasets/saliency-224x224.py',
    '../_base_/datasets/big.py', 'mmseg::_base_/default_runtime.py',
    '../_base_/schedules/crm_45k.py',
]
# No mask is too small: the released rule acts on square pictures only, and there below 4 pixels.
model = dict(test_cfg=dict(min_area=0))
