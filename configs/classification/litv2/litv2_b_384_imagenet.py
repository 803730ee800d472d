_base_ = '../../_base_/imagenet_swin_finetune_384.py'
model = dict(name='litv2_b_384', drop_path_rate=0.5, init='litv2_b.ziplab_in1k')
optim_wrapper = dict(
    optimizer=dict(lr=4e-5),
    paramwise_cfg=dict(custom_keys={'offset.weight': dict(lr_mult=0.01)}),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=30, eta_min=4e-7, end=30, convert_to_iter_based=True),
]
