# The masks of a Mask R-CNN, refined at the size of the original. For testing: the refiner's weights
# come from the training of crm_r50_2xb6-45k_saliency-224x224.
_base_ = [
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    '../_base_/models/crm_refiner.py',
]
model = dict(
    _delete_=True,
    type='mmsparse.RefinedDetector',
    detector=_base_.model,
    detector_checkpoint='https://download.openmmlab.com/mmdetection/v2.0/mask_rcnn/'
                    'mask_rcnn_r50_fpn_1x_coco/mask_rcnn_r50_fpn_1x_coco_20200205-d4b0c5d6.pth',
    refiner=_base_.refiner,
    refiner_checkpoint='work_dirs/crm_r50_2xb6-45k_saliency-224x224/iter_45705.pth')
