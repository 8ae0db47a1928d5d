# Every object of a MaskFormer, refined at the size of the original (supplement Table 2).
# For testing: the refiner's weights come from the training of crm_r50_2xb6-45k_saliency-224x224.
_base_ = [
    'mmseg::maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py',
    '../_base_/models/crm_refiner.py',
    '../_base_/datasets/ade20k_stuff.py',
]
model = dict(
    _delete_=True,
    type='mmsparse.RefinedSegmentor',
    segmentor=_base_.model,
    segmentor_checkpoint='https://download.openmmlab.com/mmsegmentation/v0.5/'
                    'maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512/'
                    'maskformer_r50-d32_8xb2-160k_ade20k-512x512_20221030_182724-3a9cfe45.pth',
    refiner=_base_.refiner,
    refiner_checkpoint='work_dirs/crm_r50_2xb6-45k_saliency-224x224/iter_45705.pth',
    class_policy=dict(stuff_classes=_base_.stuff_classes))
test_evaluator = [
    dict(type='IoUMetric', iou_metrics=['mIoU']),
    dict(type='mmsparse.BoundaryAccuracyMetric', classes=150),
]
