# SparseRefine around a segmentor. It stands in a variable of its own, because the segmentor's
# config, beside this file in `_base_`, owns `model`. The config that joins them adds segmentor,
# checkpoint, low-resolution size, alpha and stages.
sparserefine = dict(
    _delete_=True,
    type='mmsparse.SparseRefineSegmentor',
    selector=dict(type='mmsparse.EntropySelector', min_points=256),
    decode_head=dict(
        type='mmsparse.SparseRefineHead',
        extractor=dict(type='mmsparse.SparseUNet'),
        ensembler=dict(type='mmsparse.GatedEnsembler')),
    test_cfg=dict(mode='whole', seg_logits=False))
