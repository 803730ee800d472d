_base_ = 'cswin_tiny_224_imagenet.py'
model = dict(name='cswin_small_224', drop_path_rate=0.4)
