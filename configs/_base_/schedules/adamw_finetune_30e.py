# 512 images a step, as 8 processes of 64; the rate is constant, because the authors' script has no schedule `linear`
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='TimmOptimizer',
    optimizer=dict(opt='adamw', lr=5e-5, weight_decay=1e-4),
    clip_grad=dict(max_norm=5.0),
)
auto_scale_lr = dict(base_batch_size=512, enable=False)
train_cfg = dict(type='ResumableEpochLoop', max_epochs=30, val_interval=1)
val_cfg = dict(type='ValLoop')
val_evaluator = dict(type='Accuracy')
