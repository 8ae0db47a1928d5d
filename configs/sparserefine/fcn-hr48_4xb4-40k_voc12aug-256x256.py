# Low-resolution baseline on Pascal VOC: the pipelines of the dense one, halved at their end; scored at
# full size.
_base_ = './fcn-hr48_4xb4-40k_voc12aug-512x512.py'
halve = dict(type='Resize', scale_factor=0.5)
low_train_pipeline = [*_base_.train_pipeline[:-1], halve, _base_.train_pipeline[-1]]
# before LoadAnnotations: ground truth keeps its full size
low_test_pipeline = [*_base_.test_pipeline[:-2], halve, *_base_.test_pipeline[-2:]]
model = dict(data_preprocessor=dict(size=tuple(n // 2 for n in _base_.crop_size)))
train_dataloader = dict(
    dataset=dict(datasets=[
        dict(_base_.dataset_train, pipeline=low_train_pipeline),
        dict(_base_.dataset_aug, pipeline=low_train_pipeline),
    ]))
val_dataloader = dict(dataset=dict(pipeline=low_test_pipeline))
test_dataloader = val_dataloader
