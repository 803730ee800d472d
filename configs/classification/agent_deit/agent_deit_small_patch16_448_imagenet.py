# from scratch; 512 images a step, as 8 processes of 64
_base_ = 'agent_deit_small_patch16_224_imagenet.py'
train_dataloader = dict(batch_size=64, dataset=dict(transform=dict(input_size=448)))
val_dataloader = dict(dataset=dict(transform=dict(input_size=448)))
model = dict(name='agent_deit_small_patch16_448', drop_path_rate=0.1)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
auto_scale_lr = dict(base_batch_size=512)
