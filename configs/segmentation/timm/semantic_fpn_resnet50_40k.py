_base_ = '../../_base_/segmentation/semantic_fpn_ade20k_40k.py'
model = dict(
    backbone=dict(name='resnet50.tv_in1k', out_norms=None),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
