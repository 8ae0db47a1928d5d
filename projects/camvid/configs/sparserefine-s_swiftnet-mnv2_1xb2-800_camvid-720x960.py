# SparseRefine on the half-size MobileNetV2 of the long schedule.
_base_ = '../../../configs/sparserefine/sparserefine_swiftnet-r18_1xb2-800_camvid-720x960.py'
# a runner gives the top level's to a model that has none of its own
data_preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3)
model = dict(
    segmentor=dict(
        data_preprocessor=data_preprocessor,
        backbone=dict(_delete_=True, type='MobileNetV2', out_indices=(1, 2, 4, 6)),
        neck=dict(in_channels=(24, 32, 96, 320))),
    selector=dict(alpha=0.558),  # calibrated for a recall of 0.8 on training images
    features=('rgb', 'p'),
    decode_head=dict(extractor=dict(in_channels=3 + 11)),
    upsample='bilinear',
    segmentor_checkpoint='work_dirs/swiftnet-ss_mnv2_1xb8-4200_camvid-360x480/iter_1400.pth')
