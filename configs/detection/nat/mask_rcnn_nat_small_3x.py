_base_ = '../../_base_/detection/mask_rcnn_3x.py'
model = dict(
    backbone=dict(name='nat_small', out_norms=True, drop_path_rate=0.35), neck=dict(in_channels=[96, 192, 384, 768])
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
