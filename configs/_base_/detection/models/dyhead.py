# dynamic head: six blocks of three attentions between FPN and the two branches of ATSS
_base_ = 'atss.py'
fpn = dict(type='FPN', out_channels=256, start_level=0, add_extra_convs='on_output', num_outs=5)
dyhead = dict(type='DyHead', in_channels=256, out_channels=256, num_blocks=6)
model = dict(neck=[fpn, dyhead], bbox_head=dict(stacked_convs=0))
