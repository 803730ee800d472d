# The paper has the number, the repository no file: the settings of Semantic FPN elsewhere, drop path of its UPerNet
_base_ = '../../_base_/segmentation/semantic_fpn_ade20k_80k.py'
model = dict(
    backbone=dict(name='cswin_tiny_224', drop_path_rate=0.3),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
