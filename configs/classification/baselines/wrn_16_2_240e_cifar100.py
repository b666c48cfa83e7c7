# The student alone, not run: batch and learning rate of the pairs that it is in.
_base_ = ['../_base_/models/cifar100.py', '../_base_/datasets/cifar100.py',
          '../_base_/schedules/cifar100_240e.py']
model = dict(backbone=dict(type='ckd_mmdet.CifarWideResNet', depth=16, widen_factor=2, out_indices=(0, 1, 2)),
             head=dict(in_channels=128))  # the head sees the last map, ReviewKD all
