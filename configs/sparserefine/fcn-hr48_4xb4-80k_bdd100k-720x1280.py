# Dense high-resolution baseline on BDD100K.
_base_ = [
    '../_base_/models/fcn_hr48.py', '../_base_/datasets/bdd100k-720x1280.py',
    '../_base_/default_runtime.py', 'mmseg::_base_/schedules/schedule_80k.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size), decode_head=dict(num_classes=19))
