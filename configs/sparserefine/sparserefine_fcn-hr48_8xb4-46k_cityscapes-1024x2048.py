# SparseRefine on a frozen FCN-HRNet-W48 at 512x1024 (ECCV 2024, supplement Table 1: six stages,
# alpha 0.3 for a recall of 84.9 % at 11.8 % of the pixels).
_base_ = 'mmseg::hrnet/fcn_hr48_4xb2-80k_cityscapes-512x1024.py'

model = dict(
    _delete_=True,
    type='mmsparse.SparseRefineSegmentor',
    segmentor={{_base_.model}},
    # Trained for the low resolution: half-size images, crops of 256x512.
    segmentor_checkpoint='checkpoints/fcn_hr48_cityscapes-512x1024_low-resolution.pth',
    lr_scale=0.5,
    selector=dict(type='mmsparse.EntropySelector', alpha=0.3, min_points=256),
    decode_head=dict(
        type='mmsparse.SparseRefineHead',
        extractor=dict(type='mmsparse.SparseUNet', channels=(32, 64, 128, 256, 512, 1024)),
        ensembler=dict(type='mmsparse.GatedEnsembler')))

# 8 GPUs x 4 images, 500 epochs of 93 iterations, AdamW on every parameter, cosine to zero.
train_dataloader = dict(batch_size=4, num_workers=4)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-4, weight_decay=0.05))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=46500, eta_min=0, by_epoch=False)]
train_cfg = dict(max_iters=46500, val_interval=4650)
default_hooks = dict(checkpoint=dict(interval=4650, save_best='mIoU'))
randomness = dict(seed=2023)
