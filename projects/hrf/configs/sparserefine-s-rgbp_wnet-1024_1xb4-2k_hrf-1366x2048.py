# The refiner reads the low-resolution probabilities beside the color: color hardly tells arteries from
# veins. One level more, for a wider view.
_base_ = './sparserefine-s_wnet-1024_1xb4-2k_hrf-1366x2048.py'
model = dict(
    features=('rgb', 'p'),
    upsample='bilinear',
    decode_head=dict(extractor=dict(in_channels=6, channels=(16, 32, 64, 128))))
