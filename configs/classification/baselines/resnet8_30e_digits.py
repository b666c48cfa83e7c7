# The student alone: 20 labels of each digit.
_base_ = ['../_base_/models/digits.py', '../_base_/datasets/digits.py', '../_base_/schedules/digits_30e.py']
