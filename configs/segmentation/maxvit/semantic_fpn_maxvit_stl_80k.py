_base_ = '../../_base_/segmentation/semantic_fpn_ade20k_cosine_80k.py'
model = dict(
    backbone=dict(name='maxvit_stl', drop_path_rate=0.1),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
