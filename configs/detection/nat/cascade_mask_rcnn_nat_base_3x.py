_base_ = '../../_base_/detection/cascade_mask_rcnn_3x.py'
model = dict(
    backbone=dict(name='nat_base', out_norms=True, drop_path_rate=0.5), neck=dict(in_channels=[128, 256, 512, 1024])
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
