_base_ = '../../_base_/imagenet_agent.py'
model = dict(name='agent_deit_small_patch16_224', drop_path_rate=0.1)
