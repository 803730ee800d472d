_base_ = '../../_base_/segmentation/upernet_ade20k_160k.py'
model = dict(
    backbone=dict(
        name='dinat_s_tiny',
        drop_path_rate=0.3,
        dilations=[[1, 16], [1, 8], [1, 2, 1, 3, 1, 4], [1, 2]],
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
