# Open: modules of the decoder. One costs 19 GMAC at 512x512, three 43.
_base_ = './specialize-fuse_r101_4xb4-160k_ade20k-512x512.py'
model = dict(neck=dict(num_modules=1))
