# the authors also average the weights, with decay 0.99996, but score and release the others; their code for token
# labelling is not public
_base_ = '../../_base_/imagenet_deit.py'
model = dict(name='biformer_tiny', drop_path_rate=0.1)
