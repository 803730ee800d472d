_base_ = 'nat_isotropic_base_imagenet.py'
model = dict(name='vitrpb_base', drop_path_rate=0.4)
