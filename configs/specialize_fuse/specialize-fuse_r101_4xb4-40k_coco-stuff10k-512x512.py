# The full method on COCO-Stuff-10K, ResNet-101 and decoder; mmseg's schedule, the paper's is not known.
_base_ = [
    '../_base_/models/specialize-fuse_r101.py', 'mmseg::_base_/datasets/coco-stuff10k.py',
    'mmseg::_base_/default_runtime.py', 'mmseg::_base_/schedules/schedule_40k.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size), decode_head=dict(num_classes=171))
