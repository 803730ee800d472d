_base_ = '../../_base_/imagenet_deit.py'
model = dict(name='pvt_tiny', drop_path_rate=0.1)
