# timm's first map is that of the stem, and so its first stage to freeze
_base_ = '../../_base_/detection/mask_rcnn_1x_sgd.py'
model = dict(
    backbone=dict(name='resnet50.tv_in1k', out_indices=(1, 2, 3, 4), frozen_stages=2, norm_eval=True),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
