_base_ = 'pkcam_resnet18_imagenet.py'
model = dict(name='pkcam_resnet50')
