# nat_pico with other windows: its trained weights, position biases resized, tuned for three epochs
_base_ = '../nat/nat_pico_cifar10.py'
epochs = 3
model = dict(
    name='dinat_pico',
    pretrained=True,
    pretrained_cfg_overlay=dict(file='{{ fileDirname }}/../../../checkpoints/weights/nat_pico_cifar10.safetensors'),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, end=0.25, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=epochs, eta_min=1e-5, end=epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=epochs)
