_base_ = 'upernet_biformer_small_160k.py'
model = dict(
    backbone=dict(name='biformer_base', drop_path_rate=0.4),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
