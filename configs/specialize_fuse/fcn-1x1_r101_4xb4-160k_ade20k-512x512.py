# Row "ResNet-101" of the supplement's Table B: a 1x1 classifier at stride 32.
_base_ = './fcn-1x1_r101-decoder_4xb4-160k_ade20k-512x512.py'
model = dict(
    neck=None,
    decode_head=dict(in_channels=2048, in_index=3, input_transform=None, channels=2048))
