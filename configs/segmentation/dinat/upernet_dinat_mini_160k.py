_base_ = '../../_base_/segmentation/upernet_ade20k_160k.py'
model = dict(
    backbone=dict(
        name='dinat_mini',
        drop_path_rate=0.2,
        dilations=[[1, 16, 1], [1, 4, 1, 8], [1, 2, 1, 3, 1, 4], [1, 2, 1, 2, 1]],
    ),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
