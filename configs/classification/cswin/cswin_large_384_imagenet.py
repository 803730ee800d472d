# the authors publish no command for this one: the numbers of cswin_base_384
_base_ = 'cswin_base_384_imagenet.py'
model = dict(name='cswin_large_384', drop_path_rate=0.2, init='cswin_large_224.microsoft_in22k_ft_in1k')
