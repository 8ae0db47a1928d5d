# As post-lr, with the segmentor's logits from files, `lr_logits/{train,val}/IMAGE_NAME.npy`, as the
# paper's released code has them. Files of a Mask2Former need `probabilities=True`.
_base_ = './sparserefine_fcn-hr48_post-lr_8xb4-46k_cityscapes-1024x2048.py'
logits_root = '{{$MMSPARSE_DATA:data}}/cityscapes/lr_logits'
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations'),
    dict(type='mmsparse.LoadLowResLogits', logits_root=f'{logits_root}/train', aligned=False),
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(512, 1024), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='mmsparse.PackRefineInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations'),
    dict(type='mmsparse.LoadLowResLogits', logits_root=f'{logits_root}/val', aligned=False),
    dict(type='mmsparse.PackRefineInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
