# from scratch
_base_ = 'agent_pvt_large_224_imagenet.py'
train_dataloader = dict(dataset=dict(transform=dict(input_size=256)))
val_dataloader = dict(dataset=dict(transform=dict(input_size=256)))
model = dict(name='agent_pvt_medium_256', drop_path_rate=0.3)
