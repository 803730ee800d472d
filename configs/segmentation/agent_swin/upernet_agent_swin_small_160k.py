_base_ = 'upernet_agent_swin_tiny_160k.py'
model = dict(
    backbone=dict(
        name='agent_swin_small_224',
        agent_shapes=[(9, 9), (12, 12), (7, 7), (7, 7)],
        drop_path_rate=0.3,
    ),
)
