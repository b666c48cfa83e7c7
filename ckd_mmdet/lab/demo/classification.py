"""The demo of classification: handwritten digits."""

from __future__ import annotations

from pathlib import Path

from ckd_mmdet.lab.demo.main import Demo

DIGITS = Demo(Path('work_dirs/demo_classification'), 'configs/classification/baselines/resnet20_8e_digits.py',
              'configs/classification/baselines/resnet8_30e_digits.py',
              ('none', 'kd', 'ckd', 'pckd'), (0, 1, 2, 3))
