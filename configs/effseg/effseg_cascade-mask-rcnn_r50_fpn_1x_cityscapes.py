_base_ = ['./effseg_cascade-mask-rcnn_r50_fpn_1x_coco.py', '../_base_/cityscapes_instances.py']
model = dict(roi_head=dict(bbox_head=[
    dict(head, num_classes=8) for head in _base_.model.roi_head.bbox_head]))
train_dataloader = _base_.cityscapes.train_dataloader
val_dataloader = _base_.cityscapes.val_dataloader
test_dataloader = val_dataloader
val_evaluator = _base_.cityscapes.val_evaluator
test_evaluator = val_evaluator
train_cfg = _base_.cityscapes.train_cfg
param_scheduler = _base_.cityscapes.param_scheduler
