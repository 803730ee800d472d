_base_ = ['models/mask2former.py', 'datasets/ade20k_640_edges.py', 'schedules/mask2former_160k.py', 'runtime.py']
