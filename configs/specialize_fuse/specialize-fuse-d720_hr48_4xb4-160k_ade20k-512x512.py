# Open: the way from the backbone to the levels. None.
_base_ = './specialize-fuse_hr48_4xb4-160k_ade20k-512x512.py'
model = dict(decode_head=dict(channels=None))
