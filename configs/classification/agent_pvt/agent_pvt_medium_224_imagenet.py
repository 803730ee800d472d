_base_ = 'agent_pvt_tiny_224_imagenet.py'
model = dict(name='agent_pvt_medium_224', drop_path_rate=0.3)
optim_wrapper = dict(clip_grad=dict(_delete_=True, max_norm=1.0))
