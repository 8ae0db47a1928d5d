# F: no context.
_base_ = './specialize-fuse_mnv2_1xb6-600_camvid-360x480.py'
model = dict(decode_head=dict(context=dict(type='mmsparse.PooledLevels')))
