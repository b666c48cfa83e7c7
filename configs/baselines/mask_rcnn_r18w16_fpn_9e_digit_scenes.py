# The student alone: a quarter of the teacher's backbone channels.
_base_ = ['./mask_rcnn_r18_fpn_9e_digit_scenes.py']
model = dict(backbone=dict(base_channels=16, stem_channels=16), neck=dict(in_channels=[16, 32, 64, 128]))
