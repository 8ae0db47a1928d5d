# As mask-rcnn-plus_mnv2_coco128-320, cut to the shape of EffSeg's first stage: masks of 14x14, of no
# class.
_base_ = './mask-rcnn-plus_mnv2_coco128-320.py'
model = dict(roi_head=dict(mask_head=dict(
    head=dict(class_agnostic=True, upsample_cfg=dict(type=None)))))
