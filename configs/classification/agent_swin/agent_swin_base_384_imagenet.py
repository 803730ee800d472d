# 256 images a step, as 8 processes of 32
_base_ = '../../_base_/imagenet_swin_finetune_384.py'
train_dataloader = dict(batch_size=32)
model = dict(name='agent_swin_base_384', drop_path_rate=0.5, init='agent_swin_base_224.leaplabthu_in1k')
optim_wrapper = dict(optimizer=dict(lr=1e-5))
auto_scale_lr = dict(base_batch_size=256)
