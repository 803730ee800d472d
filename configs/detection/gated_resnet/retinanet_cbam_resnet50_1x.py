# not in the paper: the settings of a ResNet-50
_base_ = '../../_base_/detection/retinanet_1x_sgd.py'
model = dict(
    backbone=dict(name='cbam_resnet50', frozen_stages=1, norm_eval=True), neck=dict(in_channels=[256, 512, 1024, 2048])
)
