# The student alone, not run: batch and learning rate of the pairs that it is in.
_base_ = ['../_base_/models/cifar100.py', '../_base_/datasets/cifar100.py',
          '../_base_/schedules/cifar100_240e.py']
model = dict(backbone=dict(type='ckd_mmdet.CifarWideResNet', depth=40, widen_factor=1), head=dict(in_channels=64))
train_dataloader = dict(batch_size=32)
auto_scale_lr = dict(base_batch_size=32)
