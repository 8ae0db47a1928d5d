# D of the paper: F without re-labelling; 40.41 mIoU (paper).
_base_ = './specialize-fuse-f_hr48_4xb4-160k_ade20k-512x512.py'
model = dict(decode_head=dict(targets=dict(relabel='naive')))
