# EffSeg's masks on Cascade R-CNN, in its last stage, queried by the box head's 1024 shared features.
_base_ = 'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py'
model = dict(roi_head=dict(
    type='mmsparse.EffSegCascadeRoIHead',
    mask_head=dict(_delete_=True, type='mmsparse.EffSegMaskHead', query_channels=1024)))
