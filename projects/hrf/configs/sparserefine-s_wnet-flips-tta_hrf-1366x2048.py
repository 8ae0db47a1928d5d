# The refiner that comes with the package with `--tta`: its results averaged over flips, too. mmseg's
# segmentors know no diagonal flip of results.
_base_ = '../../../configs/sparserefine/sparserefine-s_wnet-flips_1xb4-750_hrf-1366x2048.py'
tta_model = dict(type='mmsparse.SegTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='TestTimeAug', transforms=[
        [_base_.test_pipeline[1]],
        [
            dict(type='RandomFlip', prob=0.0, direction='horizontal'),
            dict(type='RandomFlip', prob=1.0, direction='horizontal'),
            dict(type='RandomFlip', prob=1.0, direction='vertical'),
        ],
        [dict(type='LoadAnnotations')],
        [dict(type='PackSegInputs')],
    ]),
]
