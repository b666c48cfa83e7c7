# The teacher.
_base_ = ['../_base_/models/faster_rcnn_r18_fpn_digit_scenes.py', '../_base_/datasets/digit_scenes.py',
          '../_base_/schedules/digit_scenes_9e.py']
