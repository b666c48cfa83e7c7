"""Configs in the shapes that users write, as pairs, and what is done with each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONFIGS = Path(__file__).parent / 'configs'


@dataclass(frozen=True)
class Wild:
    """A student that learns from a teacher.

    Args:
        student: Name of its config.
        teacher: The same of the teacher.
        methods: By which it learns.
        options: ``--cfg-options`` of the distilled config, as a refusal tells to write them.
        quick: Whether it is part of every test run.
    """

    student: str
    teacher: str
    methods: tuple[str, ...]
    options: tuple[str, ...] = ()
    quick: bool = False


PAIRS = [
    Wild('sign_retinanet_r18', 'sign_faster_rcnn_r50', ('kd', 'l2')),
    Wild('sign_faster_rcnn_r50', 'sign_retinanet_r18', ('kd', 'pkd')),
    Wild('grocery_faster_rcnn_r18', 'grocery_cascade_r50', ('ckd', 'pckd', 'kd+reviewkd')),
    Wild('grocery_cascade_r50', 'grocery_faster_rcnn_r18', ('ckd', 'dkd')),
    Wild('drone_yolox_s', 'drone_yolox_s', ('ckd', 'l2')),
    Wild('drone_retinanet_r18', 'coco_retinanet_r50', ('ckd', 'pkd')),
    Wild('drone_retinanet_r18', 'left_at_eighty_retinanet_r50', ('ckd', 'kd')),
    Wild('cell_gray_retinanet_r18', 'cell_gray_retinanet_r50', ('kd', 'l2')),
    Wild('rtmdet_tiny', 'rtmdet_s', ('ckd', 'pkd')),
    Wild('rtmdet_tiny', 'grocery_faster_rcnn_r18', ('kd',),
         ('model.student.data_preprocessor.pad_size_divisor=32',)),
    Wild('rtmdet_ins_tiny', 'grocery_faster_rcnn_r18', ('ckd', 'l2'),
         ('model.student.data_preprocessor.pad_size_divisor=32',)),
    Wild('detr_r18', 'grocery_faster_rcnn_r18', ('ckd', 'kd'),
         ('model.student.data_preprocessor.pad_size_divisor=32',)),
    Wild('grocery_faster_rcnn_r18', 'several_heads', ('ckd', 'l2')),
    Wild('detr_r18', 'several_heads', ('ckd',), ('model.student.data_preprocessor.pad_size_divisor=32',)),
    Wild('pure_python_retinanet', 'several_heads', ('ckd', 'pkd')),
    Wild('mask_rcnn_regnet', 'mask_rcnn_swin_t', ('ckd', 'dist')),
    # no SSD: mmdet 3.3's own `predict` of it fails (`BaseDenseHead` asks for a `loss_cls` that SSDHead lacks)
    Wild('efficientnet_retinanet', 'drone_retinanet_r18', ('ckd', 'l2')),
    Wild('pure_python_retinanet', 'pure_python_retinanet', ('ckd',), quick=True),
    Wild('pure_python_retinanet', 'grocery_cascade_r50', ('kd',)),
]
