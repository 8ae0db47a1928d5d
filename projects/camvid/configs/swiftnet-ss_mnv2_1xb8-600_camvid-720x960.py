# The small study's recipe: 600 iterations of 8 squares of 288 pixels, else the paper's.
_base_ = '../../../configs/swiftnet/swiftnet-ss_mnv2_1xb12-24k_camvid-720x960.py'
model = dict(
    # The weights at hand want colors from -1 to 1; see projects/camvid/mobilenetv2.py.
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(init_cfg=dict(checkpoint='work_dirs/mobilenetv2.pth')))
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmsparse.RandomSquareCropAndScale', size=288),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=1)
test_dataloader = val_dataloader
# twice as fast on a CPU with bfloat16 units
optim_wrapper = dict(type='mmsparse.BFloat16OptimWrapper')
custom_hooks = [dict(type='mmsparse.ChannelsLastHook')]
param_scheduler = [dict(type='CosineAnnealingLR', T_max=600, eta_min=1e-6, by_epoch=False)]
train_cfg = dict(max_iters=600, val_interval=600)
default_hooks = dict(checkpoint=dict(interval=600, save_best=None))
env_cfg = dict(cudnn_benchmark=False)
randomness = dict(seed=0)
