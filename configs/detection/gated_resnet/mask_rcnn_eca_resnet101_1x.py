_base_ = '../../_base_/detection/mask_rcnn_1x_sgd.py'
model = dict(
    backbone=dict(name='eca_resnet101', frozen_stages=1, norm_eval=True), neck=dict(in_channels=[256, 512, 1024, 2048])
)
