_base_ = 'agent_swin_tiny_224_imagenet.py'
model = dict(name='agent_swin_small_224', drop_path_rate=0.3)
