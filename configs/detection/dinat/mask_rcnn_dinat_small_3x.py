_base_ = '../../_base_/detection/mask_rcnn_3x.py'
model = dict(
    backbone=dict(
        name='dinat_small',
        out_norms=True,
        drop_path_rate=0.35,
        dilations=[[1, 28, 1], [1, 7, 1, 14], 3 * [1, 3, 1, 5, 1, 7], [1, 3, 1, 3, 1]],
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
