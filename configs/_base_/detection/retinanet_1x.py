_base_ = ['models/retinanet.py', 'datasets/coco_boxes.py', 'schedules/1x.py', 'runtime.py']
