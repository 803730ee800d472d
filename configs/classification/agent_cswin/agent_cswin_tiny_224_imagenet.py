_base_ = '../../_base_/imagenet_agent.py'
model = dict(name='agent_cswin_tiny_224', drop_path_rate=0.2)
optim_wrapper = dict(clip_grad=None)
param_scheduler = [
    dict(type='LinearLR', start_factor=2e-3, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=300, eta_min_ratio=0.02, end=300, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=310)
custom_hooks = [dict(type='WeightAverage', momentum=0.00016)]
