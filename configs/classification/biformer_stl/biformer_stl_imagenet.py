_base_ = '../../_base_/imagenet_deit.py'
model = dict(name='biformer_stl', drop_path_rate=0.1)
