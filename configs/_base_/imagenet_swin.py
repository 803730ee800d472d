# Swin's script: 1,024 images a step, as 8 processes of 128; with other batches all rates are scaled
_base_ = 'imagenet_300e.py'
train_dataloader = dict(dataset=dict(transform=dict(interpolation='bicubic')))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=300, eta_min_ratio=0.01, end=300, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=300)
