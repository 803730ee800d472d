_base_ = 'upernet_cswin_tiny_160k.py'
model = dict(
    backbone=dict(name='cswin_base_224', drop_path_rate=0.6),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
