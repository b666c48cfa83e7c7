# The teacher.
_base_ = ['../_base_/models/mask_rcnn_r18_fpn_digit_scenes.py', '../_base_/datasets/digit_scenes_masks.py',
          '../_base_/schedules/digit_scenes_9e.py']
