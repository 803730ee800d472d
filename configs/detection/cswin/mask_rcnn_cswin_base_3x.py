# the authors published no file: the settings are Swin's, which the paper names
_base_ = '../../_base_/detection/mask_rcnn_3x.py'
model = dict(
    backbone=dict(name='cswin_base_224', out_norms=True, drop_path_rate=0.3), neck=dict(in_channels=[96, 192, 384, 768])
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
