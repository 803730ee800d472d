# 512 images a step, as 8 processes of 64
_base_ = 'agent_swin_tiny_224_imagenet.py'
train_dataloader = dict(batch_size=64)
model = dict(name='agent_swin_base_224', drop_path_rate=0.5)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
auto_scale_lr = dict(base_batch_size=512)
