_base_ = 'upernet_agent_swin_tiny_160k.py'
model = dict(
    backbone=dict(name='agent_swin_base_224', drop_path_rate=0.5),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
