# The student alone: a quarter of the teacher's backbone channels.
_base_ = ['./retinanet_r18_fpn_5e_digit_scenes_hard.py']
model = dict(backbone=dict(base_channels=16, stem_channels=16), neck=dict(in_channels=[16, 32, 64, 128]))
