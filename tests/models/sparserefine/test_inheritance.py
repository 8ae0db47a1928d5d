"""SparseRefine by inheritance from stock mmseg configs of every family in the paper."""
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

CONFIG = '''
_base_ = 'mmseg::{base}'
model = dict(
    _delete_=True,
    type='mmsparse.SparseRefineSegmentor',
    segmentor={{{{_base_.model}}}},
    selector=dict(type='mmsparse.EntropySelector', alpha=0.3),
    decode_head=dict(
        type='mmsparse.SparseRefineHead',
        extractor=dict(type='mmsparse.SparseUNet', channels=(8, 12))))
'''
BASES = dict(
    fcn_hrnet='hrnet/fcn_hr18s_4xb2-80k_cityscapes-512x1024.py',
    segformer='segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py',
    mask2former='mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py',
    segnext='segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py')


@pytest.mark.parametrize('family', BASES)
def test_builds_predicts_and_trains(family, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(base=BASES[family]))
    cfg = Config.fromfile(path)
    # the scope of the inherited config, and the root registry: what the runner uses
    assert cfg.default_scope == 'mmseg'
    init_default_scope(cfg.default_scope)
    cfg.model.data_preprocessor = dict(cfg.model.segmentor.data_preprocessor, size=(128, 256),
                                       batch_augments=None)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    assert model.probabilities == (family == 'mask2former')
    assert model.num_classes == (150 if family == 'segnext' else 19)
    # one row per class of Mask2Former's scores need not sum to one, its logits must be finite
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    sample = SegDataSample(metainfo=dict(ori_shape=(128, 256), img_shape=(128, 256)))
    sample.gt_sem_seg = PixelData(data=torch.randint(19, (1, 128, 256)))
    batch = dict(inputs=[torch.randint(256, (3, 128, 256), dtype=torch.uint8)],
                 data_samples=[sample])
    result = model.eval().test_step(batch)[0]
    assert result.pred_sem_seg.shape == (128, 256)
    assert result.selected.data.any() and result.seg_logits.data.isfinite().all()

    data = model.data_preprocessor(batch, True)
    losses = model.train()(**data, mode='loss')
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    trained = {n.split('.')[0] for n, p in model.named_parameters() if p.grad is not None}
    assert trained == {'decode_head'}
