# Tested on the relabelled PASCAL VOC of CascadePSP. Its pictures have about 500 pixels: as in the
# released test, all four scales run on them.
_base_ = './crm_r50_2xb6-45k_saliency-224x224.py'
model = dict(test_cfg=dict(min_long_side=0))
test_dataloader = dict(dataset=dict(
    data_root='{{$MMSPARSE_DATA:data}}/relabelled_voc', coarse_root=None))
