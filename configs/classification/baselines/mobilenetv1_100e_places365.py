# The student alone, under the schedule of CKD; not run.
_base_ = ['../_base_/models/mobilenetv1.py', '../_base_/datasets/places365.py',
          '../_base_/schedules/places365_100e.py']
model = dict(head=dict(num_classes=365))
