_base_ = [
    '../../_base_/datasets/cifar10.py',
    '../../_base_/schedules/muon_12e.py',
    '../../_base_/runtime/default.py',
]
model = dict(
    type='Classifier',
    name='nat_pico',
    loss=dict(type='label_smoothing', smoothing=0.1),
    data_preprocessor=dict(erase=None),
)
custom_hooks = [dict(type='WeightAverage', ema_type='MomentumAnnealingEMA', momentum=0.001, gamma=100)]
