# the drop path rate is not in the authors' repository
_base_ = 'biformer_tiny_imagenet.py'
model = dict(name='biformer_base', drop_path_rate=0.4)
