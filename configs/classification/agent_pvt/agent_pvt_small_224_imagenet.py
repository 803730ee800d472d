_base_ = 'agent_pvt_tiny_224_imagenet.py'
model = dict(name='agent_pvt_small_224', drop_path_rate=0.1)
