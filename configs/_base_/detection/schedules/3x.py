_base_ = '1x.py'
epochs = 36
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=500),
    dict(type='MultiStepLR', milestones=[27, 33], end=epochs),
]
train_cfg = dict(max_epochs=epochs)
