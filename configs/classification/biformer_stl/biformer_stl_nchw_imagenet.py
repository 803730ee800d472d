_base_ = 'biformer_stl_imagenet.py'
model = dict(name='biformer_stl_nchw', drop_path_rate=0.1)
