# Dense high-resolution baseline: Mask2Former on Swin-L, the stock config.
_base_ = 'mmseg::mask2former/mask2former_swin-l-in22k-384x384-pre_8xb2-90k_cityscapes-512x1024.py'
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
