_base_ = ['models/upernet.py', 'datasets/ade20k.py', 'schedules/adamw_160k.py', 'runtime.py']
