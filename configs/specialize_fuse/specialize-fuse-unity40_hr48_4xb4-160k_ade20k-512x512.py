# Open: weights of the losses.
_base_ = './specialize-fuse_hr48_4xb4-160k_ade20k-512x512.py'
model = dict(decode_head=dict(loss_decode=dict(unity_weights=(0.4, 0.4, 0.4))))
