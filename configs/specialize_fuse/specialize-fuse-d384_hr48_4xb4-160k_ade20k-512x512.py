# Open: channels. 384 fit the head's cost in the paper's Table B, 512 are 1.8 times as much.
_base_ = './specialize-fuse_hr48_4xb4-160k_ade20k-512x512.py'
model = dict(decode_head=dict(channels=384))
