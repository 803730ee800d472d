# A run of minutes: bfloat16 on a CPU too, a rate for small networks, a cosine over the whole run
iterations = 600
optim_wrapper = dict(
    type='MixedPrecision',
    dtype='bfloat16',
    constructor='ZooOptimizer',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=iterations, eta_min=1e-6),
]
train_cfg = dict(type='ResumableIterLoop', max_iters=iterations, val_interval=200)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
