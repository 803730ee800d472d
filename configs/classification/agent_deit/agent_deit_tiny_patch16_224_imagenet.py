# 4,096 images a step, as 8 processes of 512
_base_ = 'agent_deit_small_patch16_224_imagenet.py'
train_dataloader = dict(batch_size=512)
model = dict(name='agent_deit_tiny_patch16_224', drop_path_rate=0.0)
optim_wrapper = dict(optimizer=dict(lr=4e-3))
auto_scale_lr = dict(base_batch_size=4096)
