# The full method on ADE20K, HRNet-W48; mmseg's schedule, the paper's is not known.
_base_ = [
    '../_base_/models/specialize-fuse_hr48.py', 'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py', 'mmseg::_base_/schedules/schedule_160k.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
