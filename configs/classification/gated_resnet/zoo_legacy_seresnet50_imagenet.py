# the authors also rotate images by up to 10 degrees and shift their brightness by up to 20, in Caffe
_base_ = '../../_base_/imagenet_sgd.py'
model = dict(name='zoo_legacy_seresnet50')
