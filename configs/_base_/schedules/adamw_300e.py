# 300 epochs and 10 at the last rate; 1,024 images a step, as 8 processes of 128
epochs, cooldown, warmup = 300, 10, 20
optim_wrapper = dict(
    type='MixedPrecision',
    dtype='float16',
    constructor='TimmOptimizer',
    optimizer=dict(opt='adamw', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=warmup, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=epochs, eta_min=5e-6, end=epochs, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=1024, enable=False)
train_cfg = dict(type='ResumableEpochLoop', max_epochs=epochs + cooldown, val_interval=1)
val_cfg = dict(type='ValLoop', fp16=True)
val_evaluator = dict(type='Accuracy')
