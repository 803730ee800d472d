_base_ = '../../_base_/segmentation/mask2former_ade20k_640_160k.py'
model = dict(
    backbone=dict(
        name='dinat_large_21k_11x11',
        drop_path_rate=0.3,
        dilations=[[1, 14, 1], [1, 4, 1, 7], [*[1, 2, 1, 3] * 4, 1, 3], [1]],
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
)
