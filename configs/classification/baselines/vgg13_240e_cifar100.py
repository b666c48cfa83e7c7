# A teacher, not run: RepDistiller and mdistiller publish its weights, vgg13_vanilla/ckpt_epoch_240.pth.
_base_ = ['../_base_/models/vgg13_cifar100.py', '../_base_/datasets/cifar100.py',
          '../_base_/schedules/cifar100_240e.py']
