# K of the paper: two levels; 44.20 mIoU (paper).
_base_ = './specialize-fuse_hr48_4xb4-160k_ade20k-512x512.py'
model = dict(decode_head=dict(strides=(32, 4)))
