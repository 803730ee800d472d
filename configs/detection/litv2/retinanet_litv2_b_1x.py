_base_ = '../../_base_/detection/retinanet_1x_plain.py'
model = dict(
    backbone=dict(name='litv2_b', out_norms=(1, 2, 3), drop_path_rate=0.3, local_ws=(0, 0, 2, 1), with_cp=True),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
