_base_ = 'upernet_dinat_s_tiny_160k.py'
model = dict(
    backbone=dict(name='dinat_s_base', drop_path_rate=0.3),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
