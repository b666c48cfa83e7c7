# The student alone, not run: batch and learning rate of the pairs that it is in.
_base_ = ['../_base_/models/wrn_16_2_cifar100.py', '../_base_/datasets/cifar100.py',
          '../_base_/schedules/cifar100_480e.py']
