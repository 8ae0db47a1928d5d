# EffSeg of Tables 3 to 5.
_base_ = './fqdet-mask-rcnn-plus_r50_fpn_1x_coco.py'
model = dict(roi_head=dict(mask_head=dict(_delete_=True, type='mmsparse.EffSegMaskHead')))
