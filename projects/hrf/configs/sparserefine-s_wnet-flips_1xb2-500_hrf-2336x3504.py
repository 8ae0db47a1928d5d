# At the photograph's own size, from the weights of the refiner that comes with the package: crops of as
# much of the retina as its own at 1366x2048.
_base_ = '../../../configs/sparserefine/sparserefine-s_wnet-flips_1xb4-750_hrf-1366x2048.py'
# What you may want to change
max_iters = 500
load_from = None
prepared = 'work_dirs/hrf-3504'
crop_size = (768, 768)

model = dict(decode_head=dict(init_cfg=dict(
    type='Pretrained', checkpoint='mmsparse://sparserefine-s_wnet_hrf', prefix='decode_head.')))
_base_.train_pipeline[2].logits_root = f'{prepared}/wnet-1024-flips'
_base_.train_pipeline[3].crop_size = crop_size
_base_.test_pipeline[1].scale = (3504, 2336)
train_dataloader = dict(batch_size=2, dataset=dict(data_root=prepared, pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=50, by_epoch=False),
    dict(type='PolyLR', eta_min=1e-5, power=0.9, begin=50, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
