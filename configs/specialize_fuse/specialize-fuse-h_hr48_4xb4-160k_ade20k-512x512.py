# H of the paper: F with an asymmetric non-local block on every level; 43.45 mIoU (paper).
_base_ = './specialize-fuse-f_hr48_4xb4-160k_ade20k-512x512.py'
model = dict(decode_head=dict(context=dict(type='mmsparse.CoarseToFineContext', merge='none')))
