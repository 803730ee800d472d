# not in the paper: its Mask R-CNN's settings
_base_ = '../../_base_/detection/dyhead_1x.py'
model = dict(
    backbone=dict(name='nat_mini', out_norms=(1, 2, 3), drop_path_rate=0.2),
    neck=[dict(_base_.fpn, in_channels=[128, 256, 512]), _base_.dyhead],
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
