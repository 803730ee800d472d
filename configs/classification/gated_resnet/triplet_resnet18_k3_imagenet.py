_base_ = '../../_base_/imagenet_sgd.py'
model = dict(name='triplet_resnet18_k3')
