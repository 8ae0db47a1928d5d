# A lighter refiner than the paper's: half the channels, four stages. See docs/benchmarks.
_base_ = './sparserefine_mask2former-swin-l_8xb4-46k_cityscapes-1024x2048.py'
# What you may want to change
stages = (16, 32, 64, 128)  # channels of the refiner's stages

model = dict(decode_head=dict(extractor=dict(channels=stages)))
