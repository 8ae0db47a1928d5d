# Open: the losses' mean. Over all cells, as mmseg's default: levels fade as they succeed.
_base_ = './specialize-fuse_hr48_4xb4-160k_ade20k-512x512.py'
model = dict(decode_head=dict(loss_decode=dict(avg_non_ignore=False)))
