# Row "dilated" of the supplement's Table B: a 1x1 classifier at stride 8.
_base_ = './fcn-1x1_r101_4xb4-160k_ade20k-512x512.py'
model = dict(backbone=dict(dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1)))
