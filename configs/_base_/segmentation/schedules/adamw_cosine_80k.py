# The rate rises from a tenth of its cosine
_base_ = 'adamw_80k.py'
iterations, warmup = 80000, 1000
optim_wrapper = dict(optimizer=dict(lr=2e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=warmup),
    dict(type='CosineAnnealingLR', T_max=iterations, eta_min=2e-12, by_epoch=False, end=iterations),
]
train_cfg = dict(val_interval=4000)
auto_scale_lr = dict(base_batch_size=32)
