# The training data of CRM: five sets of images with one object mask each. The environment variable
# MMSPARSE_DATA names the folder that holds `saliency`; without it, `data` in the current folder.
# Nothing is resized. Batches of 6 on 2 GPUs, as in the released training.
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='mmsparse.LoadMasks'),
    dict(type='mmsparse.RandomMaskCrop', size=224),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmsparse.ColorJitter', brightness=0.2, contrast=0.05, saturation=0.05),
    # luma of BGR
    dict(
        type='RandomGrayscale',
        prob=0.1,
        keep_channels=True,
        channel_weights=(0.114, 0.587, 0.299)),
    # `cut=127` leaves soft edges out of the object, as the loss does; 0 is the released training's.
    dict(type='mmsparse.PerturbMaskBoundary', iou_range=(0.8, 1.0), cut=0),
    dict(type='mmsparse.PackMaskInputs'),
]
train_dataloader = dict(
    batch_size=6,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='mmsparse.SaliencyRefineDataset',
        data_root='{{$MMSPARSE_DATA:data}}/saliency',
        sets=('DUTS-TR', 'DUTS-TE', 'ECSSD', 'MSRA-10K', 'FSS-1000'),
        pipeline=train_pipeline))
