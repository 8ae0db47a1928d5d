# SparseRefine on Pascal VOC. alpha and schedule are those of Cityscapes, the paper's for this dataset are
# not known to us: calibrate alpha first.
_base_ = ['./fcn-hr48_4xb4-40k_voc12aug-256x256.py', '../_base_/refine_46k.py']

model = dict(
    _delete_=True,
    type='mmsparse.SparseRefineSegmentor',
    segmentor={{_base_.model}},
    segmentor_checkpoint='work_dirs/fcn-hr48_4xb4-40k_voc12aug-256x256/iter_40000.pth',
    data_preprocessor=dict(_base_.model.data_preprocessor, size=_base_.crop_size),
    low_res_scale=0.5,
    selector=dict(type='mmsparse.EntropySelector', alpha=0.3, min_points=256),
    decode_head=dict(
        type='mmsparse.SparseRefineHead',
        extractor=dict(type='mmsparse.SparseUNet', channels=(32, 64, 128, 256, 512, 1024)),
        ensembler=dict(type='mmsparse.GatedEnsembler')),
    test_cfg=dict(mode='whole', seg_logits=False))
train_dataloader = dict(dataset=dict(datasets=[_base_.dataset_train, _base_.dataset_aug]))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = _base_.refine.optim_wrapper
param_scheduler = _base_.refine.param_scheduler
train_cfg = _base_.refine.train_cfg
default_hooks = _base_.refine.default_hooks
visualizer = _base_.refine.visualizer
val_evaluator = _base_.refine.evaluator
test_evaluator = val_evaluator
randomness = dict(seed=2023)
