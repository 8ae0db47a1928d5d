# EffSeg's masks on Mask R-CNN, queried by the box head's 1024 shared features.
_base_ = 'mmdet::cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py'
model = dict(roi_head=dict(
    type='mmsparse.EffSegRoIHead',
    mask_head=dict(_delete_=True, type='mmsparse.EffSegMaskHead', query_channels=1024)))
