# the authors trained in TensorFlow on images of 896 x 896 and published no settings: these are Swin's
_base_ = '../../_base_/detection/cascade_mask_rcnn_3x.py'
model = dict(
    backbone=dict(name='zoo_maxvit_base_tf_224', out_norms=True, drop_path_rate=0.4),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
