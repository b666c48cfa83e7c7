# A teacher, not run: RepDistiller and mdistiller publish its weights, resnet56_vanilla/ckpt_epoch_240.pth.
_base_ = ['../_base_/models/cifar100.py', '../_base_/datasets/cifar100.py',
          '../_base_/schedules/cifar100_240e.py']
model = dict(backbone=dict(type='ckd_mmdet.CifarResNet', arch='resnet56'), head=dict(in_channels=64))
