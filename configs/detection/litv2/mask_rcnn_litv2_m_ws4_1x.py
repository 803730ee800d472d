_base_ = '../../_base_/detection/mask_rcnn_1x.py'
model = dict(
    backbone=dict(name='litv2_m', out_norms=(1, 2, 3), drop_path_rate=0.2, local_ws=(0, 0, 4, 1)),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16', optimizer=dict(lr=0.0002, weight_decay=0.0001))
