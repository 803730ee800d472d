_base_ = 'eca_mobilenetv2_imagenet.py'
model = dict(name='triplet_mobilenetv2')
