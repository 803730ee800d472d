_base_ = '../../_base_/detection/retinanet_1x_plain.py'
model = dict(
    backbone=dict(name='biformer_base', out_norms=True, drop_path_rate=0.3, n_win=16, norm_eval=True),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
find_unused_parameters = True  # the first output norm: RetinaNet starts at the second map
