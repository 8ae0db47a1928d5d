# Two single-scale models together; the paper: 76.45 mIoU on val (supplement Table 4). For testing: the
# members' weights are those of two trainings: `mim run mmsparse test CONFIG`.
_base_ = './swiftnet-ss_r18_1xb14-53k_cityscapes-768x768.py'
weights = 'work_dirs/swiftnet-ss_r18_1xb14-53k_cityscapes-768x768/seed_{}/iter_53000.pth'
model = dict(
    _delete_=True,
    type='mmsparse.SegEnsemble',
    segmentors=[
        dict(_base_.model, init_cfg=dict(type='Pretrained', checkpoint=weights.format(seed)))
        for seed in (0, 1)])
