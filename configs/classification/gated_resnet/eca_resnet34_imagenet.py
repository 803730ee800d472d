_base_ = '../../_base_/imagenet_sgd.py'
model = dict(name='eca_resnet34')
