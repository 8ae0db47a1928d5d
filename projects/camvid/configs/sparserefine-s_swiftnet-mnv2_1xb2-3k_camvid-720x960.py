# As sparserefine-s_swiftnet-mnv2_1xb2-800_camvid-720x960, longer, with the Dice loss beside the cross
# entropy, which does not weigh the few pixels of rare classes less, and an average of the weights.
_base_ = './sparserefine-s_swiftnet-mnv2_1xb2-800_camvid-720x960.py'
# What you may want to change
max_iters = 3000

model = dict(decode_head=dict(loss_decode=[
    dict(type='mmseg.CrossEntropyLoss', avg_non_ignore=True), dict(type='mmsparse.PointDiceLoss')]))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=50, by_epoch=False),
    dict(type='PolyLR', eta_min=1e-5, power=0.9, begin=50, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
custom_hooks = [dict(type='EMAHook', momentum=0.005)]
