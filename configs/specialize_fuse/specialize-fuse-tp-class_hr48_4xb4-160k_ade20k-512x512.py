# Open: whether a true positive needs the right class, too.
_base_ = './specialize-fuse_hr48_4xb4-160k_ade20k-512x512.py'
model = dict(decode_head=dict(targets=dict(require_class=True)))
