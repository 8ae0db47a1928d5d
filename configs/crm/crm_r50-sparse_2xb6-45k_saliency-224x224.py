# The same weights; from half size on only uncertain pixels and those near a contour are asked for.
_base_ = './crm_r50_2xb6-45k_saliency-224x224.py'
model = dict(test_cfg=dict(selector=dict(type='mmsparse.BoundarySelector')))
