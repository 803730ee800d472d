# the authors publish no code: the numbers of ECA
_base_ = '../../_base_/imagenet_sgd.py'
model = dict(name='ela_resnet18')
