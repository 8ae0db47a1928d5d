# All cells whose refinement probability is above 0.5, however many.
_base_ = './effseg_mask-rcnn_r50_fpn_1x_coco.py'
model = dict(roi_head=dict(mask_head=dict(budget=dict(threshold=0.5))))
