_base_ = '../../_base_/segmentation/upernet_ade20k_160k.py'
model = dict(
    backbone=dict(
        name='agent_swin_tiny_224',
        agent_shapes=[(9, 9), (12, 12), (14, 14), (7, 7)],
        drop_path_rate=0.3,
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
