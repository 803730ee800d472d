_base_ = '../../_base_/detection/atss_3x.py'
model = dict(
    backbone=dict(name='zoo_focalnet_tiny_lrf', out_norms=(1, 2, 3), drop_path_rate=0.3, focal_windows=(11, 9, 9, 7)),
    neck=dict(in_channels=[192, 384, 768]),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
