# 12 epochs, 16 images a step as 8 processes of 2
epochs = 12
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='ZooOptimizer',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=500),
    dict(type='MultiStepLR', milestones=[8, 11], end=epochs),
]
auto_scale_lr = dict(base_batch_size=16, enable=False)
train_cfg = dict(type='ResumableEpochLoop', max_epochs=epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
