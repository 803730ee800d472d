# the authors' factor is 0.95 for each of six groups of blocks, here it is for every block
_base_ = '../../_base_/detection/mask_rcnn_3x.py'
model = dict(
    backbone=dict(name='convnext_tiny.fb_in1k', out_norms=True, drop_path_rate=0.4),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16', paramwise_cfg=dict(layer_decay=0.98))
