_base_ = 'zoo_legacy_seresnet50_imagenet.py'
model = dict(name='zoo_legacy_seresnet152')
