_base_ = 'semantic_fpn_biformer_small_80k.py'
model = dict(
    backbone=dict(name='biformer_base', drop_path_rate=0.3),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
