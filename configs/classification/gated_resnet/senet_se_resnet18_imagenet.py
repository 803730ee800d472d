# 128 images a step, one process
_base_ = '../../_base_/imagenet_sgd.py'
train_dataloader = dict(batch_size=128)
model = dict(name='senet_se_resnet18')
optim_wrapper = dict(optimizer=dict(lr=0.075))
param_scheduler = [dict(type='MultiStepLR', milestones=[50, 70], gamma=0.1)]
auto_scale_lr = dict(base_batch_size=128)
train_cfg = dict(max_epochs=90)
