# A small run: our weights of CIFAR-10 as a start, a minute per hundred iterations on two cores
_base_ = [
    '../../_base_/segmentation/models/semantic_fpn.py',
    '../../_base_/segmentation/datasets/camvid.py',
    '../../_base_/segmentation/schedules/adamw_40k.py',
    '../../_base_/segmentation/runtime.py',
]
iterations, levels = 1500, [0, 1, 2]
model = dict(
    backbone=dict(name='nat_pico', stem_strides=(2, 2), drop_path_rate=0.1),
    neck=dict(in_channels=[64, 128, 256], out_channels=128, num_outs=3),
    decode_head=dict(
        in_channels=[128] * 3,
        in_index=levels,
        feature_strides=[4, 8, 16],
        num_classes=11,
        ignore_index=11,
    ),
)
optim_wrapper = dict(type='MixedPrecision', dtype='bfloat16', optimizer=dict(lr=1e-3, weight_decay=0.05))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, end=iterations)]
train_cfg = dict(max_iters=iterations, val_interval=300)
default_hooks = dict(checkpoint=dict(interval=300))
