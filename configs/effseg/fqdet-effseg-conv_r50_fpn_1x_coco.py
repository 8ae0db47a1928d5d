# Table 5: one 3x3 convolution.
_base_ = './fqdet-effseg_r50_fpn_1x_coco.py'
model = dict(roi_head=dict(mask_head=dict(processing=dict(type='mmsparse.SPSConvBlock'))))
