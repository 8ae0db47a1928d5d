# Open: tokens of the context. The coarsest level: then all finer work is sparse in evaluation.
_base_ = './specialize-fuse_hr48_4xb4-160k_ade20k-512x512.py'
model = dict(decode_head=dict(context=dict(kv_source='coarser')))
