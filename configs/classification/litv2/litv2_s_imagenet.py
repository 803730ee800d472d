_base_ = '../../_base_/imagenet_swin.py'
model = dict(name='litv2_s', drop_path_rate=0.2)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'offset.weight': dict(lr_mult=0.01)}))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=300, eta_min=1e-5, end=300, convert_to_iter_based=True),
]
