# Masks learn on boxes after the box head, as the paper's detector trains them.
_base_ = './effseg_mask-rcnn_r50_fpn_1x_coco.py'
model = dict(roi_head=dict(train_boxes='refined'))
