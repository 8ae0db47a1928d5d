# Open: one projection for classes and unity.
_base_ = './specialize-fuse_hr48_4xb4-160k_ade20k-512x512.py'
model = dict(decode_head=dict(unity_head='joint'))
