# The full method on Pascal-Context, 59 classes, HRNet-W48; mmseg's schedule, the paper's is not known.
_base_ = [
    '../_base_/models/specialize-fuse_hr48.py', 'mmseg::_base_/datasets/pascal_context_59.py',
    'mmseg::_base_/default_runtime.py', 'mmseg::_base_/schedules/schedule_80k.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(num_classes=59),
    # windows at multiples of 32, so that their cells coincide
    test_cfg=dict(mode='slide', crop_size=(480, 480), stride=(320, 320)))
optimizer = dict(lr=0.004, weight_decay=0.0001)
optim_wrapper = dict(optimizer=optimizer)
