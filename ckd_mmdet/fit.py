"""Whether two models can be taught and fed together, seen before any weights or data are read."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from ckd_mmdet.aligners import input_channels
from ckd_mmdet.alignment import build_alignment
from ckd_mmdet.classes import SharedClasses
from ckd_mmdet.explanation import named
from ckd_mmdet.pairing import RowPairing, check_counts
from ckd_mmdet.preprocessing import check_feeding
from mmengine.config import Config
from torch import nn


def check_alignments(alignments: Mapping[str, dict], student: nn.Module, teacher: nn.Module, class_map: bool,
                     shared: SharedClasses | None = None) -> dict[str, str]:
    """Build the alignments as the Distiller will, so that what it would refuse is refused before data are read.

    Args:
        alignments: Configs by name, as the Distiller's.
        student: The student's detector; untrained will do, as for the teacher.
        teacher: The teacher's.
        class_map: Whether the classes are paired by their names.
        shared: Those that are, where they are known already.

    Returns:
        How many rows each alignment pairs, in words, by its name.

    Raises:
        ValueError: If one cannot be built, or cannot pair the two.
    """
    rows = {}
    for name, cfg in alignments.items():
        alignment = build_alignment(name, copy.deepcopy(cfg))
        scorings = alignment.check(student, teacher)
        alignment.build_parts(student, teacher)
        rows[name] = alignment.aligner.rows_in_words(student)
        if scorings is None:
            continue
        if not class_map:
            check_counts(f'`alignments.{name}`', scorings)
            shared = SharedClasses.all(scorings[0].num_classes)
        if shared is not None:
            RowPairing(alignment, scorings, shared)
    return rows


def check_inputs(cfg: Config, student: nn.Module, teacher: nn.Module) -> None:
    """Refuse a teacher that cannot be fed with the student's images.

    Args:
        cfg: The distilled config.
        student: The student's model, untrained, as the teacher's.
        teacher: The teacher's.

    Raises:
        ValueError: If it takes other channels, another padding, or pixels that cannot be made from the student's.
    """
    name, channels = named(cfg.model.teacher.config), [input_channels(model) for model in (student, teacher)]
    if channels[0] != channels[1]:
        raise ValueError(f"the teacher ({name}) sees the student's images, of {channels[0]} channel"
                         f'{"s" * (channels[0] > 1)}, and takes {channels[1]}; give a teacher that was trained on such '
                         'images.')
    at = 'data_preprocessor' if cfg.get('data_preprocessor') else 'model.student.data_preprocessor'
    check_feeding(student.data_preprocessor, teacher.data_preprocessor, name,
                  cfg.model.teacher.get('check_preprocessing', True), at)
