# F of the paper: the pyramid on pooled features, no context; 42.07 mIoU (paper).
_base_ = './specialize-fuse_hr48_4xb4-160k_ade20k-512x512.py'
model = dict(decode_head=dict(context=dict(type='mmsparse.PooledLevels')))
