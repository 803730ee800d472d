# 1,024 images a step, as 8 processes of 128
_base_ = 'cswin_tiny_224_imagenet.py'
train_dataloader = dict(batch_size=128)
model = dict(name='cswin_base_224', drop_path_rate=0.5)
optim_wrapper = dict(optimizer=dict(lr=1e-3, weight_decay=0.1))
auto_scale_lr = dict(base_batch_size=1024)
custom_hooks = [dict(type='WeightAverage', momentum=0.00008)]
