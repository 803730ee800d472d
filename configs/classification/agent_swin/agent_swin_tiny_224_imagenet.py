_base_ = '../../_base_/imagenet_agent.py'
model = dict(name='agent_swin_tiny_224', drop_path_rate=0.2)
