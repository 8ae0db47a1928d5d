# Tokens of the coarsest level, and finer levels computed only where they are read.
_base_ = './specialize-fuse-kv-coarser_hr48_4xb4-160k_ade20k-512x512.py'
model = dict(decode_head=dict(fusion=dict(sparse=True)))
custom_hooks = [dict(type='mmsparse.ActiveCellsHook')]
