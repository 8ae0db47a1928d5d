# Row "decoder" of the supplement's Table B: a 1x1 classifier on ResNet-101 and decoder.
_base_ = './specialize-fuse_r101_4xb4-160k_ade20k-512x512.py'
model = dict(
    decode_head=dict(
        _delete_=True,
        type='FCNHead',
        in_channels=[48, 96, 192, 384],
        in_index=(0, 1, 2, 3),
        input_transform='resize_concat',
        channels=720,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0,
        num_classes=150))
