# not in the paper: its Mask R-CNN's settings
_base_ = '../../_base_/detection/retinanet_1x.py'
model = dict(
    backbone=dict(name='nat_mini', out_norms=(1, 2, 3), drop_path_rate=0.2),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
