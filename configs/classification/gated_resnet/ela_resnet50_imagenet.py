_base_ = 'ela_resnet18_imagenet.py'
model = dict(name='ela_resnet50')
