_base_ = 'semantic_fpn_agent_pvt_tiny_40k.py'
model = dict(backbone=dict(name='agent_pvt_small_224', drop_path_rate=0.1))
