_base_ = 'upernet_cswin_tiny_160k.py'
model = dict(backbone=dict(name='cswin_small_224', drop_path_rate=0.4))
