# Open: the stem. One 7x7 convolution, not three 3x3.
_base_ = './specialize-fuse_r101_4xb4-160k_ade20k-512x512.py'
model = dict(pretrained='torchvision://resnet101', backbone=dict(type='ResNet'))
