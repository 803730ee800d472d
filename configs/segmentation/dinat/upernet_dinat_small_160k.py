_base_ = 'upernet_dinat_mini_160k.py'
model = dict(
    backbone=dict(name='dinat_small', drop_path_rate=0.5),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
