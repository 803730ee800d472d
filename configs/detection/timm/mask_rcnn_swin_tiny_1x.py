_base_ = '../../_base_/detection/mask_rcnn_1x_crops.py'
model = dict(
    backbone=dict(
        name='swin_tiny_patch4_window7_224',
        strict_img_size=False,
        always_partition=True,
        out_norms=True,
        drop_path_rate=0.1,
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
