# mmseg's runtime for one machine without a GPU.
_base_ = 'mmseg::_base_/default_runtime.py'
env_cfg = dict(cudnn_benchmark=False, dist_cfg=dict(backend='gloo'))
randomness = dict(seed=0)
