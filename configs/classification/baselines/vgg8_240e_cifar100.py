# The student alone, not run: batch and learning rate of the pairs that it is in.
_base_ = ['../_base_/models/cifar100.py', '../_base_/datasets/cifar100.py',
          '../_base_/schedules/cifar100_240e.py']
model = dict(backbone=dict(type='ckd_mmdet.CifarVGG', depth=8), head=dict(in_channels=512))
