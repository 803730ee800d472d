_base_ = '../../_base_/detection/mask_rcnn_1x_crops.py'
model = dict(
    backbone=dict(name='zoo_focalnet_tiny_lrf', out_norms=True, drop_path_rate=0.1, focal_windows=9),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
param_scheduler = [_base_.param_scheduler[0], dict(type='MultiStepLR', milestones=[9, 11], end=_base_.epochs)]
