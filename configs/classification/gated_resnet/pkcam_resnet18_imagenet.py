_base_ = '../../_base_/imagenet_sgd.py'
model = dict(name='pkcam_resnet18')
train_cfg = dict(max_epochs=200)
