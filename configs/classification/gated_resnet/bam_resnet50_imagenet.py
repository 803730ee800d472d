_base_ = 'bam_resnet18_imagenet.py'
model = dict(name='bam_resnet50')
