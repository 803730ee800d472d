_base_ = 'senet_se_resnet18_imagenet.py'
model = dict(name='senet_se_resnet101')
