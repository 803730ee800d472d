_base_ = '../../_base_/imagenet_300e.py'
model = dict(name='dinat_s_tiny', drop_path_rate=0.2)
