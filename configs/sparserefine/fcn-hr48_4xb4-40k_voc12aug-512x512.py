# Dense high-resolution baseline on Pascal VOC.
_base_ = [
    '../_base_/models/fcn_hr48.py', '../_base_/datasets/voc12aug-512x512.py',
    '../_base_/default_runtime.py', 'mmseg::_base_/schedules/schedule_40k.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size), decode_head=dict(num_classes=21))
