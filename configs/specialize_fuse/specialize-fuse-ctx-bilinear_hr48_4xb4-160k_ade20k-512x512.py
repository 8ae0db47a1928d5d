# Open: how the coarser level is enlarged.
_base_ = './specialize-fuse_hr48_4xb4-160k_ade20k-512x512.py'
model = dict(decode_head=dict(context=dict(upsample='bilinear')))
