_base_ = 'semantic_fpn_cswin_tiny_80k.py'
model = dict(
    backbone=dict(name='cswin_base_224', drop_path_rate=0.6),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
