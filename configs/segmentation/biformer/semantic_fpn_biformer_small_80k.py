_base_ = '../../_base_/segmentation/semantic_fpn_ade20k_cosine_80k.py'
model = dict(
    backbone=dict(name='biformer_small', n_win=8, drop_path_rate=0.15),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
