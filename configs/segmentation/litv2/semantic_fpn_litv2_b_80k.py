_base_ = '../../_base_/segmentation/semantic_fpn_ade20k_80k.py'
model = dict(
    backbone=dict(name='litv2_b', drop_path_rate=0.3),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
