# As sparserefine-s_wnet_1xb4-1500_hrf-1366x2048, from the weights of the refiner that comes with the
# package, on the low-resolution segmentor of our own: wnet_1xb4-2k_hrf-576x864.
_base_ = '../../../configs/sparserefine/sparserefine-s_wnet_1xb4-1500_hrf-1366x2048.py'
load_from = None
scores = f'{_base_.prepared}/wnet-576'
model = dict(
    segmentor=dict(backbone=dict(num_classes=3)),
    segmentor_checkpoint='work_dirs/wnet_1xb4-2k_hrf-576x864/iter_2000.pth',
    low_res_size=(576, 864),
    decode_head=dict(init_cfg=dict(
        type='Pretrained', checkpoint='mmsparse://sparserefine-s_wnet_hrf', prefix='decode_head.')))
_base_.train_pipeline[2].logits_root = scores
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
