# 96 images a step, as 2 processes of 48
_base_ = '../../_base_/imagenet_sgd.py'
train_dataloader = dict(batch_size=48)
model = dict(name='eca_mobilenetv2')
optim_wrapper = dict(optimizer=dict(lr=0.045, weight_decay=4e-5))
param_scheduler = [dict(type='ExponentialLR', gamma=0.98)]
auto_scale_lr = dict(base_batch_size=96)
train_cfg = dict(max_epochs=400)
