# CamVid, MobileNetV2. The paper's schedule was never released: batch and iterations are ours.
_base_ = './swiftnet-ss_mnv2_1xb14-53k_cityscapes-768x768.py'
dataset = dict(type='mmsparse.CamVidDataset', data_root='{{$MMSPARSE_DATA:data}}/camvid')
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmsparse.RandomSquareCropAndScale', size=576),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=12,
    dataset=dict(**dataset, pipeline=train_pipeline, data_prefix=dict(
        img_path='images/train', seg_map_path='labels/train')))
val_dataloader = dict(
    dataset=dict(**dataset, data_prefix=dict(
        img_path='images/val', seg_map_path='labels/val')))
test_dataloader = val_dataloader
model = dict(decode_head=dict(num_classes=11))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=24000, eta_min=1e-6, by_epoch=False)]
train_cfg = dict(max_iters=24000)
