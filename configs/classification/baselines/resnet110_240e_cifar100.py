# A teacher, not run: RepDistiller and mdistiller publish its weights, resnet110_vanilla/ckpt_epoch_240.pth.
_base_ = ['../_base_/models/resnet110_cifar100.py', '../_base_/datasets/cifar100.py',
          '../_base_/schedules/cifar100_240e.py']
