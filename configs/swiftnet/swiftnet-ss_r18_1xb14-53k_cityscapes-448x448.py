# Half resolution; the paper: 70.2 mIoU (supplement Table 5).
_base_ = [
    '../_base_/models/swiftnet-ss_r18.py', '../_base_/datasets/cityscapes-448x448.py',
    'mmseg::_base_/default_runtime.py', '../_base_/schedules/swiftnet_53k.py',
]
