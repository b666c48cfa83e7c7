"""What a user has who gets something wrong: a folder, a teacher, data, the tools; and what one row of the table is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from ckd_mmdet.export import export_student
from ckd_mmdet.lab.datasets.digit_sources import CLASSES
from ckd_mmdet.losses import RowLoss
from ckd_mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from tests.small_runs import distilled, run_config, run_tool, student_config, train
from tests.toys import saved_teacher, toy_batch, toy_config, toy_model


@MODELS.register_module()
class NeedsMaps(RowLoss):
    """A loss over what no aligner of rows gives."""

    requires = frozenset({'logits', 'maps'})

    def per_sample(self, samples, *, epoch):
        raise NotImplementedError


@dataclass(frozen=True)
class Row:
    """One thing that a user gets wrong.

    Args:
        tool: By which, or the part of it that is called.
        do: What the user does.
        words: A pattern in what the user reads.
        kind: ``'clear'``: argument, wish and fact, in our words; ``'raw'``: an error of other people's that names the
            thing; ``'accepted'``: no error.
        reason: Why it is accepted.
    """

    tool: str
    do: Callable[[Bench], object]
    words: str = ''
    kind: str = 'clear'
    reason: str = ''


class NoRunner:
    """Stands where the Runner would be built: whatever came so far was accepted."""

    def train(self) -> None:
        pass

    test = train


@dataclass
class Bench:
    """What a user has: a folder, a teacher, data, the tools."""

    folder: Path
    taught: dict
    digits: Path
    monkeypatch: pytest.MonkeyPatch

    def build(self, *, student: dict | None = None, teacher: dict | None = None, roi: dict | None = None,
              alignments: dict | None = None) -> nn.Module:
        """A good distilled student with these parts changed."""
        cfg = distilled(student or student_config(), {**self.taught, **(teacher or {})})
        cfg['alignments']['roi'].update(roi or {})
        return toy_model({**cfg, **({} if alignments is None else dict(alignments=alignments))})

    def with_checkpoint(self, write: Callable[[Path], object]) -> nn.Module:
        path = self.folder / 'teacher.pth'
        write(path)
        return self.build(teacher=dict(checkpoint=str(path)))

    def with_logits(self, value: float) -> None:
        """A training forward under a teacher whose logits are ``value``."""
        student = self.build(teacher=dict(config=student_config()))
        student.distillation.pair(student, None)
        nn.init.constant_(student.distillation.teachers[None].model.roi_head.bbox_head.fc_cls.bias, value)
        student(**student.data_preprocessor(toy_batch(num_items=[2, 2], num_classes=10), True), mode='loss')

    def config(self, change: Callable[[Config], object] = lambda cfg: None, *, plain: bool = False) -> Path:
        """The file of a good config, distilled or not, that was changed."""
        model = student_config() if plain else distilled(student_config(), self.taught)
        cfg = run_config(model, self.digits, self.folder / 'run', epochs=1)
        change(cfg)
        (self.folder / 'config.py').write_text(cfg.pretty_text)
        return self.folder / 'config.py'

    def tool(self, name: str, *arguments: object, real: bool = False) -> None:
        """Run a tool up to the Runner, or all of it."""
        with self.monkeypatch.context() as patch:
            if not real:
                patch.setattr('mmengine.runner.Runner.from_cfg', lambda cfg: NoRunner())
            run_tool(self.monkeypatch, name, *arguments)

    def train_tool(self, *options: str) -> None:
        self.tool('train', self.config(), '--cfg-options', *options)

    def file(self, name: str, content: str | bytes = '') -> Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def train_file(self, content: str | bytes, *arguments: object) -> None:
        """Train a config file that holds this."""
        self.tool('train', self.file('config.py', content), *arguments)

    def train_changed(self, change: Callable[[Config], object], *arguments: object, real: bool = False) -> None:
        self.tool('train', self.config(change), *arguments, real=real)

    def with_coco(self, spoil: Callable[[dict], object], *arguments: object) -> None:
        """Train on annotations that are spoilt."""
        data = json.loads(self.coco())
        spoil(data)
        self.with_annotations(json.dumps(data), *arguments)

    def export(self, checkpoint: object) -> None:
        torch.save(checkpoint, self.folder / 'empty.pth')
        export_student(self.folder / 'empty.pth', self.folder / 'out.pth')

    def with_annotations(self, text: str | bytes, *arguments: object) -> None:
        file = self.file('train.json', text)
        self.tool('train', self.config(), *arguments, '--cfg-options', f'train_dataloader.dataset.ann_file={file}')

    def with_classes(self, classes: tuple[str, ...] = CLASSES, *, num_classes: int = 10,
                     known: tuple[str, ...] = CLASSES, **teacher: object) -> None:
        """A run on some of the data's classes, under a teacher that knows others."""
        taught = dict(config=student_config(), checkpoint=saved_teacher(self.folder, student_config(), classes=known))
        cfg = run_config(distilled(toy_config('faster_rcnn', num_classes), {**taught, **teacher}), self.digits,
                         self.folder, epochs=1)
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.dataset.metainfo.classes = classes
        train(cfg)

    def with_class_map(self, class_map: object, **known: tuple[str, ...]) -> None:
        self.with_classes(('three', 'zero', 'seven'), num_classes=3, class_map=class_map, **known)

    def coco(self) -> str:
        return (self.digits / 'annotations/train.json').read_text()
