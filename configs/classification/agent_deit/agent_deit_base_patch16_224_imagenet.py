_base_ = 'agent_deit_small_patch16_224_imagenet.py'
model = dict(name='agent_deit_base_patch16_224', drop_path_rate=0.3)
