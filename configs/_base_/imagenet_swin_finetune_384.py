# Swin's script at 384 pixels; the rate is 2e-5 for 512 images a step
_base_ = 'imagenet_swin.py'
train_dataloader = dict(dataset=dict(transform=dict(input_size=384)))
val_dataloader = dict(dataset=dict(transform=dict(input_size=384, crop_pct=1.0, crop_mode='squash')))
optim_wrapper = dict(optimizer=dict(weight_decay=1e-8))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=30, eta_min_ratio=0.01, end=30, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=30)
