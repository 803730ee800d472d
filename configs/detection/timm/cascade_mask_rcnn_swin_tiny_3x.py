# timm's Swin has no norms of its outputs, which the authors' has
_base_ = '../../_base_/detection/cascade_mask_rcnn_3x.py'
model = dict(
    backbone=dict(name='swin_tiny_patch4_window7_224', strict_img_size=False, drop_path_rate=0.2),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
