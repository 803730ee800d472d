# 512 images a step, as 8 processes of 64; the rate is constant, because the authors' script has no schedule `linear`
train_dataloader = dict(batch_size=64)
val_dataloader = dict(batch_size=64)
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
model = dict(type='Classifier', loss=dict(type='label_smoothing', smoothing=0.1))
