# A small CRM on MobileNetV2. Its pictures are written by projects/refine/prepare.py; it goes on from
# the weights of an earlier training on the outlines of COCO (projects/refine/README.md), which started
# from ImageNet's.
_base_ = './crm_r50_2xb6-45k_saliency-224x224.py'
# What you may want to change
data_root = 'work_dirs/refine'
max_iters = 3000
load_from = 'work_dirs/crm_objects.pth'

model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(_delete_=True, type='mmsparse.CRMMobileNetV2'),
    neck=dict(in_channels=(16, 24, 96), widths=(32, 32, 64), channels=128, dropout=0.0),
    head=dict(in_channels=128),
    train_cfg=dict(scales=(0.5, 1.0)))
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='mmsparse.LoadMasks'),
    dict(type='mmsparse.RandomMaskCrop', size=96),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmsparse.ColorJitter', brightness=0.2, contrast=0.05, saturation=0.05),
    dict(type='mmsparse.PerturbMaskBoundary'),
    dict(type='mmsparse.PackMaskInputs'),
]
train_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(
    data_root=data_root, sets=[('train/im', 'train/gt')], pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(
    data_root=f'{data_root}/pasted', coarse_root=None))
test_dataloader = val_dataloader
optim_wrapper = dict(
    type='mmsparse.BFloat16OptimWrapper', optimizer=dict(lr=5e-4, weight_decay=1e-5))
param_scheduler = [dict(
    type='CosineAnnealingLR', T_max=max_iters, eta_min=1e-6, by_epoch=False)]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=1000, max_keep_ckpts=2))
env_cfg = dict(cudnn_benchmark=False)
sync_bn = None
randomness = dict(seed=0)
