_base_ = ['models/retinanet.py', 'datasets/coco_boxes.py', 'schedules/1x_plain.py', 'runtime.py']
