epochs, warmup = 12, 0.5
optim_wrapper = dict(
    type='MixedPrecision',
    dtype='bfloat16',
    constructor='TimmOptimizer',
    optimizer=dict(opt='muon', lr=3e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=warmup, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=epochs, eta_min=1e-5, end=epochs, convert_to_iter_based=True),
]
train_cfg = dict(type='ResumableEpochLoop', max_epochs=epochs, val_interval=1)
val_cfg = dict(type='ValLoop', fp16=True)
val_evaluator = dict(type='Accuracy')
