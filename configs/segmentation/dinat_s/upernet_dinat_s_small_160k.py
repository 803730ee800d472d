_base_ = 'upernet_dinat_s_tiny_160k.py'
model = dict(backbone=dict(name='dinat_s_small', drop_path_rate=0.3))
