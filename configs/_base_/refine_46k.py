# SparseRefine's schedule, that of the paper's released code on Cityscapes, and its evaluation. The
# pieces stand in a variable of their own, because the configs beside this file in `_base_` own the
# plain names.
refine = dict(
    # AdamW on every parameter, cosine to zero over 500 epochs of 93 iterations.
    optim_wrapper=dict(
        _delete_=True,
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=3e-4, weight_decay=0.05)),
    param_scheduler=[dict(type='CosineAnnealingLR', T_max=46500, eta_min=0, by_epoch=False)],
    train_cfg=dict(type='IterBasedTrainLoop', max_iters=46500, val_interval=4650),
    default_hooks=dict(
        checkpoint=dict(
            _delete_=True, type='CheckpointHook', by_epoch=False, interval=4650, save_best='mIoU'),
        visualization=dict(_delete_=True, type='mmsparse.RefinementVisualizationHook')),
    visualizer=dict(
        _delete_=True,
        type='mmsparse.RefinementVisualizer',
        name='visualizer',
        vis_backends=[dict(type='LocalVisBackend')]),
    # One evaluation shows what refinement bought.
    evaluator=[
        dict(type='IoUMetric', iou_metrics=['mIoU']),
        dict(type='mmsparse.LowResIoUMetric'),
        dict(type='mmsparse.SelectorMetric'),
        dict(type='mmsparse.IoUBySizeMetric'),
    ])
