# The full method with finer levels computed only where they are read: same weights, same result.
_base_ = './specialize-fuse_hr48_4xb4-160k_ade20k-512x512.py'
model = dict(decode_head=dict(fusion=dict(sparse=True)))
custom_hooks = [dict(type='mmsparse.ActiveCellsHook')]
