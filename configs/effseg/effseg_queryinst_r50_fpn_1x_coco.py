# EffSeg's masks on QueryInst, in its last stage, queried by its object features.
_base_ = 'mmdet::queryinst/queryinst_r50_fpn_1x_coco.py'
model = dict(roi_head=dict(
    type='mmsparse.EffSegSparseRoIHead',
    mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=0)),
    mask_head=dict(_delete_=True, type='mmsparse.EffSegMaskHead')))
