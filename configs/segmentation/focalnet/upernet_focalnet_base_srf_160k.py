_base_ = 'upernet_focalnet_tiny_srf_160k.py'
model = dict(
    backbone=dict(name='zoo_focalnet_base_srf', drop_path_rate=0.3),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
