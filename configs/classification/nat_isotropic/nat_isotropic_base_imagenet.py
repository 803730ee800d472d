_base_ = '../../_base_/imagenet_300e.py'
model = dict(name='nat_isotropic_base', drop_path_rate=0.4)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=50, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=300, eta_min=5e-6, end=300, convert_to_iter_based=True),
]
custom_hooks = [dict(type='WeightAverage', momentum=0.0002)]
