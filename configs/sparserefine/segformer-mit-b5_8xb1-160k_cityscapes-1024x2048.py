# Dense high-resolution baseline: SegFormer-B5, the stock config. One pass per image,
# where the stock config slides three windows over it.
_base_ = 'mmseg::segformer/segformer_mit-b5_8xb1-160k_cityscapes-1024x1024.py'
model = dict(test_cfg=dict(_delete_=True, mode='whole'))
dataset = dict(
    type='mmsparse.CityscapesDataset', data_root='{{$MMSPARSE_DATA:data}}/cityscapes')
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='IoUMetric', iou_metrics=['mIoU']),
    dict(type='mmsparse.IoUBySizeMetric'),
]
test_evaluator = val_evaluator
