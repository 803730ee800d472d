_base_ = '../../_base_/detection/cascade_mask_rcnn_3x.py'
model = dict(
    backbone=dict(name='zoo_focalnet_tiny_lrf', out_norms=True, drop_path_rate=0.3, focal_windows=(11, 9, 9, 7)),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
