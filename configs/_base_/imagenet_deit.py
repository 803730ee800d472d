# DeiT's script: 1,024 images a step, as 8 processes of 128; its rates change by the epoch, here by the iteration
_base_ = 'imagenet_300e.py'
train_dataloader = dict(
    dataset=dict(transform=dict(interpolation='bicubic')),
    sampler=dict(_delete_=True, type='RepeatedAugmentation', num_repeats=3),
)
optim_wrapper = dict(clip_grad=None)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=300, eta_min=1e-5, end=300, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=300)
