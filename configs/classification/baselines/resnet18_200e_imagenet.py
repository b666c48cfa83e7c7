# The student alone, under the schedule of CKD; not run.
_base_ = ['mmpretrain::_base_/models/resnet18.py', '../_base_/datasets/imagenet.py',
          '../_base_/schedules/imagenet_200e.py']
