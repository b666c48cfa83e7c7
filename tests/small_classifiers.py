"""Classifiers of handwritten digits, trained on a few of them: a run of two epochs takes a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

LOAD_NOTHING = [dict(type='PackInputs')]
PREPROCESSOR = dict(num_classes=10, mean=[127.5] * 3, std=[64.0] * 3, to_rgb=False)


def classifier_config(arch: str = 'resnet8', width: int = 64) -> dict:
    """The ``model`` of a plain classifier, as MMPretrain's configs have it: its preprocessing stands outside."""
    return dict(type='ImageClassifier', backbone=dict(type='ckd_mmdet.CifarResNet', arch=arch),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=10, in_channels=width, loss=dict(type='CrossEntropyLoss')))


def run_config(model: dict, epochs: int = 2, **changes: Any) -> Config:
    """A run of 3 steps an epoch, validated on 20 images after every epoch."""
    def loader(split: str, images: int, size: int) -> dict:
        return dict(batch_size=size, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=split == 'train'),
                    dataset=dict(type='ckd_mmdet.HandwrittenDigits', split=split, images_per_class=images,
                                 pipeline=LOAD_NOTHING))

    evaluator = dict(type='Accuracy', topk=(1, 5))
    val = loader('test', 2, 10)
    return Config(dict(
        default_scope='mmpretrain', model=model, data_preprocessor=PREPROCESSOR,
        train_dataloader=loader('train', 3, 10), val_dataloader=val, test_dataloader=val, val_evaluator=evaluator,
        test_evaluator=evaluator, train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1), val_cfg=dict(),
        test_cfg=dict(), optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9)),
        param_scheduler=[dict(type='MultiStepLR', by_epoch=True, begin=0, end=epochs, milestones=[1])],
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)), randomness=dict(seed=3), log_level='WARNING',
        **changes))


def distilled(student: dict, teacher: Path, checkpoint: Path, losses: dict[str, dict]) -> dict:
    """The same student in a Distiller, its rows the images."""
    return dict(type='ckd_mmdet.Distiller', student=student,
                teacher=dict(config=str(teacher), checkpoint=str(checkpoint), check_accuracy=False),
                alignments=dict(image=dict(aligner=dict(type='ckd_mmdet.ImageAligner'), losses=losses)))
