_base_ = [
    '../../_base_/datasets/digits.py',
    '../../_base_/schedules/muon_12e.py',
    '../../_base_/runtime/default.py',
]
epochs = 6
model = dict(type='Classifier', name='nat_pico', loss=dict(type='label_smoothing', smoothing=0.1))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=epochs, eta_min=1e-5, end=epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=epochs)
