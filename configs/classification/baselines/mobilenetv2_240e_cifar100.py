# The student alone, not run: batch and learning rate of the pairs that it is in.
_base_ = ['../_base_/models/cifar100.py', '../_base_/datasets/cifar100.py',
          '../_base_/schedules/cifar100_240e.py']
model = dict(backbone=dict(type='ckd_mmdet.CifarMobileNetV2'), head=dict(in_channels=1280))
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(base_batch_size=32)
