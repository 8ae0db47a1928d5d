# B of the paper: A with an asymmetric non-local block; 42.02 mIoU (paper).
_base_ = './specialize-fuse-a_hr48_4xb4-160k_ade20k-512x512.py'
model = dict(decode_head=dict(context=dict(type='mmsparse.FinestContext')))
