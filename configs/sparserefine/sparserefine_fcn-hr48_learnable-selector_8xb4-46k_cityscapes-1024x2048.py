# A learned selector (supplement sec. 3) in place of entropy, within the same share of the pixels.
_base_ = './sparserefine_fcn-hr48_8xb4-46k_cityscapes-1024x2048.py'
model = dict(
    selector=dict(
        _delete_=True,
        type='mmsparse.LearnableSelector',
        threshold=0.5,
        min_points=256,
        max_density=0.118))
