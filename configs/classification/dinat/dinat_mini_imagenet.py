_base_ = '../../_base_/imagenet_300e.py'
model = dict(name='dinat_mini', drop_path_rate=0.2)
