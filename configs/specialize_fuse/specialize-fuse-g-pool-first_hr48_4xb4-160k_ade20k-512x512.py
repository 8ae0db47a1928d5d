# Open in G: coarse features pooled before the non-local block.
_base_ = './specialize-fuse-g_hr48_4xb4-160k_ade20k-512x512.py'
model = dict(
    decode_head=dict(
        context=dict(
            type='mmsparse.CoarseToFineContext', merge='none', attention_strides=(4, ))))
