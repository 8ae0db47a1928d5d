# BIG: objects in photographs of 2K to 6K, for validation and testing only. The environment variable
# MMSPARSE_DATA names the folder that holds `big`; without it, `data` in the current folder.
# `coarse_root` holds the masks to refine; they may be smaller than the images.
coarse_root = '{{$MMSPARSE_DATA:data}}/big/coarse'
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='mmsparse.LoadMasks', resize_coarse=True),
    dict(type='mmsparse.PackMaskInputs'),
]
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmsparse.BIGDataset',
        data_root='{{$MMSPARSE_DATA:data}}/big/val',
        coarse_root=coarse_root,
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmsparse.BIGDataset',
        data_root='{{$MMSPARSE_DATA:data}}/big/test',
        coarse_root=coarse_root,
        test_mode=True,
        pipeline=test_pipeline))
val_evaluator = dict(type='mmsparse.BoundaryAccuracyMetric')
test_evaluator = val_evaluator
