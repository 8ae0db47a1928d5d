# Tested on the relabelled PASCAL VOC of CascadePSP.
_base_ = './crm_r50_2xb6-45k_saliency-224x224.py'
test_dataloader = dict(dataset=dict(
    data_root='{{$MMSPARSE_DATA:data}}/relabelled_voc', coarse_root=None))
