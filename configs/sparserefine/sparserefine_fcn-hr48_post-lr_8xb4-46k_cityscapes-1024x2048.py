# The data flow of the paper's released code: the segmentor sees clean images, and its logits are
# scaled, cropped and flipped together with image and label. Strided convolutions without padding.
_base_ = './sparserefine_fcn-hr48_8xb4-46k_cityscapes-1024x2048.py'
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations'),
    dict(type='mmsparse.KeepLowRes', scale=(1024, 512)),
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(512, 1024), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='mmsparse.PackRefineInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
model = dict(joint_aug='post_lr', decode_head=dict(extractor=dict(down_padding=0)))
