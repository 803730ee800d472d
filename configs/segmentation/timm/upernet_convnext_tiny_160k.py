# The authors' factor is 0.9 for each of six groups of blocks, here it is for every block
_base_ = '../../_base_/segmentation/upernet_ade20k_160k.py'
model = dict(
    backbone=dict(name='convnext_tiny.fb_in1k', drop_path_rate=0.4),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
optim_wrapper = dict(
    type='MixedPrecision',
    dtype='float16',
    constructor='ZooOptimizer',
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, layer_decay=0.96),
)
