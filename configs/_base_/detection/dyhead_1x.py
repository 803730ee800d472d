_base_ = ['models/dyhead.py', 'datasets/coco_boxes.py', 'schedules/1x.py', 'runtime.py']
