# Passive cells pass the module's first layer as well, so that convolutions read one kind of feature.
_base_ = './fqdet-effseg_r50_fpn_1x_coco.py'
model = dict(roi_head=dict(mask_head=dict(processing=dict(
    type='mmsparse.SemanticFusionModule', project_passive=True))))
