# The teacher.
_base_ = ['../_base_/models/retinanet_r18_fpn_digit_scenes.py', '../_base_/datasets/digit_scenes.py',
          '../_base_/schedules/digit_scenes_12e_adamw.py']
