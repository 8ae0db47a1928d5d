# Supplement Table 1: conv2_x, conv3_x and conv4_x are fused, at the size of conv4_x; the encoder
# subsamples once more, so that the three sizes differ.
_base_ = './crm_r50_2xb6-45k_saliency-224x224.py'
model = dict(
    backbone=dict(strides=(1, 2, 2), dilations=(1, 1, 1)),
    neck=dict(fuse='2-3-4', out_level=2, in_channels=(256, 512, 1024)))
