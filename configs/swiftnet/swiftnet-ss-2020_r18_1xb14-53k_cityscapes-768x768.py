# As the 2020 release, for its weights: taps after the ReLU, color statistics of Cityscapes.
_base_ = './swiftnet-ss_r18_1xb14-53k_cityscapes-768x768.py'
model = dict(
    data_preprocessor=dict(mean=[73.15, 82.90, 72.3], std=[47.67, 48.49, 47.73]),
    backbone=dict(tap='post'))
