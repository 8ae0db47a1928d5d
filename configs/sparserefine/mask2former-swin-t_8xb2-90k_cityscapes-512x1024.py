# Low-resolution baseline: Mask2Former on Swin-T, trained for half-size Cityscapes and scored at full size.
_base_ = [
    'mmseg::mask2former/mask2former_swin-t_8xb2-90k_cityscapes-512x1024.py',
    '../_base_/low_res_cityscapes.py',
]
model = dict(data_preprocessor=dict(size=_base_.low_res.crop_size))
train_dataloader = dict(
    dataset=dict(pipeline=_base_.low_res.train_pipeline, **_base_.low_res.dataset))
val_dataloader = dict(
    dataset=dict(pipeline=_base_.low_res.test_pipeline, **_base_.low_res.dataset))
test_dataloader = val_dataloader
val_evaluator = _base_.low_res.evaluator
test_evaluator = val_evaluator
