# Table 5, the last row: all cells in all stages.
_base_ = './fqdet-effseg_r50_fpn_1x_coco.py'
model = dict(roi_head=dict(mask_head=dict(budget=None, reduce_features=True)))
