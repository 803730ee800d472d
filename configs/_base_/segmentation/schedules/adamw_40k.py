_base_ = 'adamw_80k.py'
iterations = 40000
optim_wrapper = dict(optimizer=dict(lr=2e-4))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, end=iterations)]
train_cfg = dict(max_iters=iterations, val_interval=4000)
