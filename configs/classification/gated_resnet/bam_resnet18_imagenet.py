# the released weights took 90 epochs, the authors' command says 100
_base_ = '../../_base_/imagenet_sgd.py'
model = dict(name='bam_resnet18')
train_cfg = dict(max_epochs=90)
