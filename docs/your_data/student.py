# A quarter-width ResNet-18 from scratch.
_base_ = ['./cells.py']
model = dict(
    backbone=dict(depth=18, base_channels=16, stem_channels=16, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[16, 32, 64, 128]))
