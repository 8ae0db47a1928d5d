# The paper's words for the target, where the authors' code takes the coverage.
_base_ = './effseg_mask-rcnn_r50_fpn_1x_coco.py'
model = dict(roi_head=dict(mask_head=dict(target='center')))
