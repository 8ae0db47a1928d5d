# DeepGlobe Land Cover at full resolution. The environment variable MMSPARSE_DATA names the folder
# that holds `deepglobe`; without it, `data` in the current folder. Loading and augmentation as on
# BDD100K.
_base_ = './bdd100k-720x1280.py'
dataset_type = 'mmsparse.DeepGlobeLandCoverDataset'
data_root = '{{$MMSPARSE_DATA:data}}/deepglobe'
# Below half the picture: nothing is padded at the smallest ratio.
crop_size = (1024, 1024)
train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (2448, 2448)  # RandomResize
train_pipeline[3].crop_size = crop_size  # RandomCrop
train_dataloader = dict(dataset=dict(
    type=dataset_type, data_root=data_root, pipeline=train_pipeline,
    data_prefix=dict(img_path='images/train', seg_map_path='labels/train')))
val_dataloader = dict(dataset=dict(
    type=dataset_type, data_root=data_root,
    data_prefix=dict(img_path='images/val', seg_map_path='labels/val')))
test_dataloader = val_dataloader
