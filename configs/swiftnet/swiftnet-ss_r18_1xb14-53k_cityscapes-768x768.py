# Single scale, ResNet-18; the paper: 75.4 mIoU on val (best of the run).
_base_ = [
    '../_base_/models/swiftnet-ss_r18.py', '../_base_/datasets/cityscapes-768x768.py',
    'mmseg::_base_/default_runtime.py', '../_base_/schedules/swiftnet_53k.py',
]
