# A of the paper: the final projection on the stride-4 features alone; 40.42 mIoU (paper).
_base_ = './specialize-fuse-f_hr48_4xb4-160k_ade20k-512x512.py'
model = dict(decode_head=dict(strides=(4, )))
