# A teacher, under the schedule of its students; not run.
_base_ = ['mmpretrain::_base_/models/resnet34.py', '../_base_/datasets/places365.py',
          '../_base_/schedules/places365_100e.py']
model = dict(head=dict(num_classes=365))
