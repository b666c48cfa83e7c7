# The student alone, under the schedule of CKD; not run.
_base_ = ['../_base_/models/mobilenetv1.py', '../_base_/datasets/imagenet.py',
          '../_base_/schedules/imagenet_200e.py']
