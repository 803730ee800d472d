# 256 images a step, as 8 processes of 32
_base_ = 'agent_cswin_tiny_224_imagenet.py'
train_dataloader = dict(batch_size=32, dataset=dict(transform=dict(input_size=384)))
val_dataloader = dict(dataset=dict(transform=dict(input_size=384)))
model = dict(name='agent_cswin_base_384', drop_path_rate=0.7, init='agent_cswin_base_224.leaplabthu_in1k')
optim_wrapper = dict(optimizer=dict(lr=2.5e-6, weight_decay=1e-8))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=20, eta_min_ratio=0.1, end=20, convert_to_iter_based=True)]
auto_scale_lr = dict(base_batch_size=256)
train_cfg = dict(max_epochs=30)
custom_hooks = [dict(type='WeightAverage', momentum=0.0002)]
