_base_ = '../../_base_/segmentation/upernet_ade20k_160k.py'
model = dict(
    backbone=dict(
        name='swin_tiny_patch4_window7_224', strict_img_size=False, always_partition=True, drop_path_rate=0.3
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
