_base_ = [
    '../../_base_/datasets/cifar10.py',
    '../../_base_/schedules/muon_12e.py',
    '../../_base_/runtime/default.py',
]
# Another mixer: --cfg-options model.mixer=hilo, or one per stage.
model = dict(
    type='Classifier',
    name='mixer_pico',
    mixer=['na', ['na', dict(name='na', kernel_size=3, dilation=2)], 'attention'],
    loss=dict(type='label_smoothing', smoothing=0.1),
    data_preprocessor=dict(erase=None),
)
custom_hooks = [dict(type='WeightAverage', ema_type='MomentumAnnealingEMA', momentum=0.001, gamma=100)]
