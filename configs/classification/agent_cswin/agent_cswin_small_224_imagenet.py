_base_ = 'agent_cswin_tiny_224_imagenet.py'
model = dict(name='agent_cswin_small_224', drop_path_rate=0.4)
