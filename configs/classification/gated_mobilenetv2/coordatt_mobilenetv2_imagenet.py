# the numbers of the paper: the authors publish no training code
_base_ = '../../_base_/imagenet_sgd.py'
model = dict(name='coordatt_mobilenetv2')
optim_wrapper = dict(optimizer=dict(lr=0.05, weight_decay=4e-5))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=200, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=200)
