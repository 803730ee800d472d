_base_ = [
    '../../_base_/datasets/cifar10.py',
    '../../_base_/schedules/adamw_16e.py',
    '../../_base_/runtime/default.py',
]
model = dict(
    type='Classifier',
    name='nat_pico',
    drop_path_rate=0.05,
    loss=dict(type='label_smoothing', smoothing=0.1),
)
custom_hooks = [dict(type='WeightAverage', ema_type='MomentumAnnealingEMA', momentum=0.001, gamma=100)]
