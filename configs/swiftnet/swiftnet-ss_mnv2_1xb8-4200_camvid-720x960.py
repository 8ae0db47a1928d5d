# MobileNetV2 with ImageNet's weights on CamVid in a night on one CPU core; see projects/camvid. Three
# cycles of the learning rate: each ends with weights to use, scored.
_base_ = './swiftnet-ss_mnv2_1xb12-24k_camvid-720x960.py'
model = dict(
    # The weights at hand want colors from -1 to 1; see projects/camvid/mobilenetv2.py.
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(init_cfg=dict(checkpoint='work_dirs/mobilenetv2.pth')))
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmsparse.RandomSquareCropAndScale', size=384),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=1)
test_dataloader = val_dataloader
# twice as fast on a CPU with bfloat16 units
optim_wrapper = dict(type='mmsparse.BFloat16OptimWrapper')
custom_hooks = [dict(type='mmsparse.ChannelsLastHook')]
param_scheduler = [dict(
    type='CosineRestartLR', periods=[1400] * 3, restart_weights=[1] * 3, eta_min=1e-6, by_epoch=False)]
train_cfg = dict(max_iters=4200, val_interval=1400)
default_hooks = dict(checkpoint=dict(interval=200, max_keep_ckpts=1, save_best=None))
env_cfg = dict(cudnn_benchmark=False)
randomness = dict(seed=0)
