# As sparserefine-s_wnet_1xb4-1500_hrf-1366x2048, from the same weights, on the low-resolution segmentor
# of our own: wnet_1xb4-2k_hrf-576x864.
_base_ = '../../../configs/sparserefine/sparserefine-s_wnet_1xb4-1500_hrf-1366x2048.py'
scores = f'{_base_.prepared}/wnet-576'
model = dict(
    segmentor=dict(backbone=dict(num_classes=3)),
    segmentor_checkpoint='work_dirs/wnet_1xb4-2k_hrf-576x864/iter_2000.pth',
    low_res_size=(576, 864))
_base_.train_pipeline[2].logits_root = scores
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
