# Open: targets of the finest level. The most frequent class of each cell.
_base_ = './specialize-fuse_hr48_4xb4-160k_ade20k-512x512.py'
model = dict(decode_head=dict(targets=dict(finest='majority')))
