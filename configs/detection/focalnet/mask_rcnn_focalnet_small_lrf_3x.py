_base_ = '../../_base_/detection/mask_rcnn_3x.py'
model = dict(
    backbone=dict(name='zoo_focalnet_small_lrf', out_norms=True, drop_path_rate=0.5, focal_windows=9),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
