_base_ = '../../_base_/detection/mask_rcnn_1x.py'
model = dict(
    backbone=dict(name='biformer_base', out_norms=True, drop_path_rate=0.3, n_win=16, norm_eval=True),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
