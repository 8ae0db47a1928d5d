# Open: how a level meets the coarser one.
_base_ = './specialize-fuse_hr48_4xb4-160k_ade20k-512x512.py'
model = dict(decode_head=dict(context=dict(merge='add')))
