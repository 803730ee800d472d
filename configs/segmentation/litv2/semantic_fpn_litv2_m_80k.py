_base_ = '../../_base_/segmentation/semantic_fpn_ade20k_80k.py'
model = dict(
    backbone=dict(name='litv2_m', drop_path_rate=0.2),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
