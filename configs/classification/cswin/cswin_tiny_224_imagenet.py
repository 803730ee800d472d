# 2,048 images a step, as 8 processes of 256
_base_ = '../../_base_/imagenet_300e.py'
train_dataloader = dict(batch_size=256)
val_dataloader = dict(dataset=dict(transform=dict(crop_pct=0.9)))
model = dict(name='cswin_tiny_224', drop_path_rate=0.2)
optim_wrapper = dict(optimizer=dict(lr=2e-3), clip_grad=None)
param_scheduler = [
    dict(type='LinearLR', start_factor=5e-4, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=300, eta_min=1e-5, end=300, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=2048)
custom_hooks = [dict(type='WeightAverage', momentum=0.00016)]
