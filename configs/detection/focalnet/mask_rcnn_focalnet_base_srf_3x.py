_base_ = '../../_base_/detection/mask_rcnn_3x.py'
model = dict(
    backbone=dict(name='zoo_focalnet_base_srf', out_norms=True, drop_path_rate=0.5, focal_windows=9),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
