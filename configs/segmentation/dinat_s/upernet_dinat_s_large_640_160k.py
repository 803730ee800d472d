_base_ = '../../_base_/segmentation/upernet_ade20k_640_160k.py'
model = dict(
    backbone=dict(
        name='dinat_s_large_21k',
        drop_path_rate=0.3,
        dilations=[[1, 20], [1, 10], [1, 2, 1, 3, 1, 4, 1, 5, 1, 2, 1, 3, 1, 4, 1, 5, 1, 5], [1, 2]],
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16')
