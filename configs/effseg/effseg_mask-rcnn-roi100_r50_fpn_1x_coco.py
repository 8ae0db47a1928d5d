# 100 cells of each object instead of 10,000 of the image.
_base_ = './effseg_mask-rcnn_r50_fpn_1x_coco.py'
model = dict(roi_head=dict(mask_head=dict(budget=dict(per_roi=100))))
