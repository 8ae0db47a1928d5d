# Open: norm and ReLU after the decoder's 3x3 convolutions. None.
_base_ = './specialize-fuse_r101_4xb4-160k_ade20k-512x512.py'
model = dict(neck=dict(projection_norm=False))
