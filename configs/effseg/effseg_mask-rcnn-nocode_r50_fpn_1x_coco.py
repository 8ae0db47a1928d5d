# Without the position code, as in the paper's text.
_base_ = './effseg_mask-rcnn_r50_fpn_1x_coco.py'
model = dict(roi_head=dict(mask_head=dict(position_code=False)))
