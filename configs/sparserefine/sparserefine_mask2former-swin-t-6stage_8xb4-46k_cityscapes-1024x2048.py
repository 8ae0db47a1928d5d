# Six stages, as the released config has them; the paper's text and latency tables have five.
_base_ = './sparserefine_mask2former-swin-t_8xb4-46k_cityscapes-1024x2048.py'
stages = (32, 64, 128, 256, 512, 1024)
model = dict(decode_head=dict(extractor=dict(channels=stages)))
