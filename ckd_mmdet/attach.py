"""From two untouched configs to a distilled one: which aligner, which rows, which loss, and why."""

from __future__ import annotations

import copy
import inspect
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckd_mmdet.aligners import Aligner, is_classifier
from ckd_mmdet.alignment import build_alignment
from ckd_mmdet.classes import Scoring, SharedClasses, match_classes
from ckd_mmdet.config import DISTILLER, add_hook, class_names, read_config
from ckd_mmdet.distilled import distil
from ckd_mmdet.pairing import RowPairing, check_counts
from ckd_mmdet.registry import MODELS, TASK_UTILS, build_part
from ckd_mmdet.teacher import build_model, read_teacher_config, zoo_address
from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn


@dataclass(frozen=True)
class Recipe:
    """Rows and weight of a method on what an aligner pairs."""

    selector: dict | None
    """``None`` where maps are paired."""
    loss_weight: float | str
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of a loss by its name, where they are others than in :data:`METHODS`."""


METHODS: dict[str, dict[str, dict]] = {  # the losses of each, by name
    'ckd': dict(loss_ckd=dict(type='CKDLoss')),
    'kd': dict(loss_kd=dict(type='KDLoss')),
    'dkd': dict(loss_dkd=dict(type='DKDLoss', alpha=1.0, beta=0.25, temperature=1.0)),  # CKD's authors' for detection
    'dist': dict(loss_dist=dict(type='DISTLoss')),
    'pckd': dict(  # weights in proportion as the published configuration has them
        loss_contrast=dict(type='CategoryContrastLoss', preview=dict(base=1.005), loss_weight=0.05),
        loss_centers=dict(type='CenterAlignmentLoss', loss_weight=1.0),
        loss_features=dict(type='FeatureAlignmentLoss', loss_weight=20.0)),
    'features': dict(loss_alignment=dict(type='FeatureAlignmentLoss')),  # PCKD's, alone
    'l2': dict(loss_l2=dict(type='L2Loss')),
    'pkd': dict(loss_pkd=dict(type='PKDLoss')),
    'reviewkd': dict(loss_reviewkd=dict(type='ReviewKDLoss')),
}

# All of these are ours; README and docs/study.md have those that are measured (not dist, pkd, reviewkd). The released
# CKD is `All` with weight 0.1 on RoIs (arXiv 2404.14109), configs/_base_/alignments/roi_ckd.py, for no other heads.
RECIPES: dict[str, dict[str, Recipe]] = {
    'ImageAligner': {
        'ckd': Recipe(dict(type='All'), 10.0),
        'kd': Recipe(dict(type='All'), 1.0, dict(loss_kd=dict(temperature=4.0))),
        'dkd': Recipe(dict(type='All'), 1.0, dict(loss_dkd=dict(beta=8.0, temperature=4.0))),
        'dist': Recipe(dict(type='All'), 1.0),
        'pckd': Recipe(dict(type='All'), 1.0),
        'features': Recipe(dict(type='All'), 20.0),  # as in PCKD
    },
    'RoIAligner': {
        'ckd': Recipe(dict(type='Foreground'), 1.0),  # as configs/_base_/alignments/roi_ckd_foreground.py
        'kd': Recipe(dict(type='All'), 1.0),
        'dkd': Recipe(dict(type='All'), 1.0),
        'dist': Recipe(dict(type='All'), 1.0),
        'pckd': Recipe(dict(type='ForegroundPlus', k=64), 0.25,  # as configs/_base_/alignments/roi_pckd.py
                       dict(loss_features=dict(expansion=2))),
        'features': Recipe(dict(type='ForegroundPlus', k=64), 5.0, dict(loss_alignment=dict(expansion=2))),
    },
    'DenseAligner': {
        'ckd': Recipe(dict(type='TeacherTopK', k=256), 1.0),  # not every dense head gives labels
        'kd': Recipe(dict(type='TeacherTopK', k=1024), 1.0),
    },
    'NeckAligner': {
        'l2': Recipe(None, 1.0),
        'pkd': Recipe(None, 6.0),  # as mmrazor's configs of PKD (arXiv 2207.02039)
        'reviewkd': Recipe(None, 1.0),  # as released for Faster R-CNN R101 -> R50
    },
    'QueryAligner': {
        'ckd': Recipe(dict(type='All'), 1.0),
        'kd': Recipe(dict(type='All'), 1.0),
        'dkd': Recipe(dict(type='All'), 1.0),
        'dist': Recipe(dict(type='All'), 1.0),
    },
    'ObjectAligner': {
        'ckd': Recipe(dict(type='All'), 1.0),
        'kd': Recipe(dict(type='All'), 1.0),
        'dkd': Recipe(dict(type='All'), 1.0),
        'dist': Recipe(dict(type='All'), 1.0),
    },
}

# In the order in which they are tried: the more rows an aligner pairs, the earlier.
REASONS = {
    'ImageAligner': 'both classify whole images',
    'RoIAligner': 'both have a RoI head, the teacher classifies the proposals that the student sampled',
    'DenseAligner': 'both score every anchor of the same levels',
    'QueryAligner': 'both answer by queries, each side matched with the objects by its own assigner',
    'ObjectAligner': 'the heads are of different kinds, each side gives one row an object',
}


@dataclass(frozen=True)
class Choice:
    """How the rows of two models are paired."""

    aligners: dict[str, dict]
    """Config of the aligner of each alignment, by the alignment's name."""
    scorings: tuple[Scoring, Scoring] | None
    """How student and teacher write the scores of a row; ``None`` where no rows are paired."""
    reasons: list[str]
    """What was taken and why; then what was tried before and why it was refused."""


def choose_alignment(student: nn.Module, teacher: nn.Module) -> Choice:
    """Take the first aligner that can pair the two: RoI, dense, query, object.

    Where both have RoI heads with stages, there is one alignment for each stage that both have; where one has, its
    last stage is taken.

    Raises:
        ValueError: If none can; the text has the reason of each.
    """
    refused: list[str] = []
    any_classifier = is_classifier(student) or is_classifier(teacher)
    for kind, why in REASONS.items():
        if kind == 'ImageAligner' and not any_classifier:
            continue
        chosen = _roi_stages(student, teacher) if kind == 'RoIAligner' else {_short(kind): dict(type=kind)}
        try:
            scorings = [_aligner(cfg).scorings(student, teacher) for cfg in chosen.values()][-1]
        except ValueError as error:
            refused.append(str(error))
            continue
        ours, theirs = (f'{type(model).__name__}, {scoring}'
                        for model, scoring in zip((student, teacher), scorings, strict=True))
        return Choice(chosen, scorings, [f'{kind}: {why}; student {ours}, teacher {theirs}', *refused])
    raise ValueError(f'no aligner can pair a {type(student).__name__} as student with a {type(teacher).__name__} as '
                     'teacher; take another teacher. What each said:\n' + '\n'.join(refused))


def distill_config(student: str | Path | Config, teacher: str | Path | Config | None, method: str = 'ckd', *,
                   teacher_checkpoint: str | Path | None = None, loss_weight: float | str | dict | None = None,
                   selector: str | dict | Sequence[str | dict] | None = None,
                   class_map: str | Mapping[str, str] | None = None) -> Config:
    """The student's whole config, with a teacher in it; what was chosen is printed, and why.

    Both models are built once, with random weights, to see what they are; nothing is downloaded. What was chosen
    stands in ``model.alignments`` of the result, the reasons in ``distillation``.

    Args:
        student: A plain config: a path, ``'mmdet::...'``, or one already read.
        teacher: The same of the teacher; not looked at by the method ``'none'``.
        method: One of :data:`METHODS`, or several joined by ``+``, each with its weight after a colon where it is not
            the recipe's: ``'ckd:0.5+pkd'``, ``'l2:balance:0.5'``. ``'none'`` gives the student's own config, seeded as
            the distilled one is.
        teacher_checkpoint: Path or address of its weights; of an ``mmdet::`` config the model zoo's by default.
        loss_weight: Instead of the recipe's, for every method that has none of its own: a number, a schedule, or
            ``'balance:0.5'``, see :class:`ckd_mmdet.losses.Weight`.
        selector: Instead of the recipe's, where rows are paired: ``'Foreground'``, ``'TeacherTopK:512'``, several in
            turn joined by ``+`` or in a list; or configs of them.
        class_map: As the teacher's, see :func:`ckd_mmdet.classes.match_classes`; by default ``'name'`` where the
            class names of the two configs differ.

    Returns:
        A config for the Runner; it equals itself after ``dump`` and ``Config.fromfile``.

    Raises:
        ValueError: If an argument is unknown, the models cannot be paired, or the loss makes no sense between them.
    """
    wanted = parse_method(method)
    cfg = _student_config(student)
    if not wanted:
        add_hook(cfg)
        return cfg
    if teacher is None:
        raise ValueError(f'`method={method!r}` needs a `teacher`; to train the student alone, take `none`.')
    taught_by = _teacher(teacher, teacher_checkpoint)
    teacher_config = read_teacher_config(taught_by['config'])
    models = build_model(cfg), build_model(teacher_config)
    of_rows = any(part.name not in RECIPES['NeckAligner'] for part in wanted)
    if selector is not None and not of_rows:
        raise ValueError(f'`selector` chooses rows, and `method={method!r}` pairs feature maps, all of them; leave the '
                         'selector out, or join a method of rows with +.')
    choice = choose_alignment(*models) if of_rows else Choice({}, None, [])
    alignments = _alignments(choice, wanted, loss_weight, selector)
    pairing = _pair_classes(class_names(cfg), class_names(teacher_config), choice.scorings, class_map)
    check_alignments(alignments, *models, pairing.class_map is not None, pairing.shared)

    if pairing.class_map is not None:
        taught_by['class_map'] = pairing.class_map
    made = Config(cfg.to_dict(), cfg_text=f'# by ckd_mmdet.distill_config, method {method}',
                  filename=f'{run_name(cfg.filename, method, teacher)}.py')  # the Runner's name for what it dumps
    made.model = dict(type=DISTILLER, student=cfg.model, teacher=taught_by, alignments=alignments)
    of_maps = ['NeckAligner: the feature maps of both, level by level'] if 'neck' in alignments else []
    made.distillation = dict(aligner=[*choice.reasons[:1], *of_maps], refused=choice.reasons[1:], classes=pairing.why)
    add_hook(made)
    if os.environ.get('RANK', '0') == '0':  # no process group yet: each process of a launcher comes here
        print_log(explain(made))
    return made


def explain(cfg: Config) -> str:
    """What :func:`distill_config` chose and why, a few lines of text."""
    rows = [('teacher', f"{_named(cfg.model.teacher.config)}, weights {cfg.model.teacher.checkpoint}"),
            *(('aligner', chosen) for chosen in cfg.distillation.aligner),
            *(('', f"({reason.split('; ')[0]})") for reason in cfg.distillation.refused)]
    seen: dict[str, list[str]] = {}  # the stages of a cascade are alike
    for name, alignment in cfg.model.alignments.items():
        losses = [f'{_call({**loss, "loss_weight": None})}, weight {loss.loss_weight}'
                  for loss in alignment.losses.values()]
        seen.setdefault(f'{" and ".join(losses)}, on {_rows_of(alignment)}', []).append(name)
    rows += [('loss', f'{text} ({", ".join(names)})') for text, names in seen.items()]
    rows.append(('classes', cfg.distillation.classes))
    if cfg.get('work_dir'):
        rows.append(('config', os.path.join(cfg.work_dir, os.path.basename(cfg.filename))))
    return '\n'.join(f'{name:<10}{text}' for name, text in rows)


def run_name(student: str | None, method: str, teacher: str | Path | Config | None) -> str:
    """Name of a run: ``<student>_<method>_<teacher>``, each by its config's file name."""
    if isinstance(teacher, Config):
        teacher = teacher.filename
    named = [student or 'student'], [] if method == 'none' else [teacher or 'teacher']
    return '_'.join([*(Path(part).stem for part in named[0]), method.replace(':', '-'),
                     *(Path(part).stem for part in named[1])])


def student_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those overrides of a distilled config that change the student's own: ``model.student.x`` is its ``model.x``.

    Raises:
        ValueError: If one changes something in ``model`` that no distilled config has there.
    """
    known = ('type', *inspect.signature(distil).parameters)
    for key in options:
        first, *rest = key.split('.')
        if first == 'model' and (not rest or rest[0] not in known):
            raise ValueError(f'`--cfg-options {key}=...` goes into a distilled config, whose `model` has nothing of '
                             f'this name: write {".".join(["model.student", *rest])}=... for the student.')
    return {re.sub(r'^model\.student\.', 'model.', key): value for key, value in options.items()
            if not key.startswith('model.') or key.startswith('model.student.')}


def class_map_option(options: Mapping[str, Any]) -> str | dict[str, str] | None:
    """The ``model.teacher.class_map`` that overrides set, as a whole or class by class."""
    key = 'model.teacher.class_map'
    by_class = {name[len(key) + 1:]: theirs for name, theirs in options.items() if name.startswith(f'{key}.')}
    return options.get(key) or by_class or None


@dataclass(frozen=True)
class _Pairing:
    """How the classes are paired."""

    class_map: str | dict[str, str] | None
    shared: SharedClasses | None
    """``None`` where the names are known from the teacher's checkpoint only."""
    why: str


def _pair_classes(ours: tuple[str, ...] | None, theirs: tuple[str, ...] | None,
                  scorings: tuple[Scoring, Scoring] | None,
                  class_map: str | Mapping[str, str] | None) -> _Pairing:
    if scorings is None:
        return _Pairing(None, None, 'not looked at, maps know none')
    counts = tuple(scoring.num_classes for scoring in scorings)
    if ours and len(ours) != counts[0] and counts != (1, 1):  # RPNs know no names
        raise ValueError(f"the student's head scores {counts[0]} classes, and its training data have {len(ours)} "
                         f'({_few(ours)}); set `num_classes` of its head, or `metainfo.classes` of its '
                         '`train_dataloader.dataset`, so that they agree.')
    if theirs and len(theirs) != counts[1] and counts != (1, 1):
        theirs = None  # its checkpoint knows better
    if class_map is None and (ours == theirs or not (ours and theirs) and counts[0] == counts[1]):
        return _Pairing(None, None, f'the same {len(ours)}' if ours else f'{counts[0]} on both sides, without names')
    class_map = class_map or 'name'
    class_map = class_map if isinstance(class_map, str) else dict(class_map)
    how = 'by name' if class_map == 'name' else 'by `class_map`'
    if not (ours and theirs):
        return _Pairing(class_map, None, f'{counts[0]} of the student, {counts[1]} of the teacher, to be paired {how} '
                                         'when the names in its checkpoint are read')
    shared = match_classes(ours, theirs, class_map)
    pairs = [ours[i] if ours[i] == theirs[j] else f'{ours[i]} (as {theirs[j]})'
             for i, j in zip(shared.student, shared.teacher, strict=True)]
    return _Pairing(class_map, shared, f'the teacher knows {len(theirs)}, the student {len(ours)}; {len(shared)} '
                                       f'paired {how}: {_few(pairs)}')


def check_alignments(alignments: Mapping[str, dict], student: nn.Module, teacher: nn.Module, class_map: bool,
                     shared: SharedClasses | None = None) -> None:
    """Build the alignments as the Distiller will, so that what it would refuse is refused before data are read.

    Args:
        alignments: Configs by name, as the Distiller's.
        student: The student's detector; untrained will do, as for the teacher.
        teacher: The teacher's.
        class_map: Whether the classes are paired by their names.
        shared: Those that are, where they are known already.

    Raises:
        ValueError: If one cannot be built, or cannot pair the two.
    """
    for name, cfg in alignments.items():
        alignment = build_alignment(name, copy.deepcopy(cfg))
        scorings = alignment.check(student, teacher)
        alignment.build_parts(student, teacher)
        if scorings is None:
            continue
        if not class_map:
            check_counts(f'`alignments.{name}`', scorings)
            shared = SharedClasses.all(scorings[0].num_classes)
        if shared is not None:
            RowPairing(alignment, scorings, shared)


@dataclass(frozen=True)
class Part:
    """A method of several."""

    name: str
    """One of :data:`METHODS`."""
    loss_weight: float | str | None
    """Its own weight."""


def parse_method(method: str) -> list[Part]:
    """Read ``'ckd:0.5+pkd'``; ``'none'`` has no parts.

    Raises:
        ValueError: If a name is unknown, or there twice.
    """
    if method == 'none':
        return []
    parts = [_part(text) for text in method.split('+')]
    names = [part.name for part in parts]
    if not set(names) <= set(METHODS) or len(set(names)) < len(names):
        raise ValueError(f'`method` needs one of {", ".join(METHODS)}, several of them joined by +, or none, got '
                         f'{method!r}.')
    return parts


def _part(text: str) -> Part:
    name, colon, weight = text.partition(':')
    return Part(name, read_weight(weight) if colon else None)


def read_weight(text: str) -> float | str:
    """A number where it is one; ``'balance:0.5'`` stays as it is, and so does what is wrong, for its own error."""
    try:
        return float(text)
    except ValueError:
        return text


def _alignments(choice: Choice, parts: Sequence[Part], loss_weight: float | str | dict | None,
                selector: str | dict | Sequence[str | dict] | None) -> dict[str, dict]:
    """Alignments by name; methods on the same rows share one."""
    alignments: dict[str, dict] = {}
    for part in parts:
        on_maps = part.name in RECIPES['NeckAligner']
        for name, aligner in (dict(neck=dict(type='NeckAligner')) if on_maps else choice.aligners).items():
            recipe = _recipe(part.name, aligner['type'])
            weight = next(given for given in (part.loss_weight, loss_weight, recipe.loss_weight) if given is not None)
            losses = {key: {**loss, **recipe.settings.get(key, {})} for key, loss in METHODS[part.name].items()}
            losses = {key: {**loss, 'loss_weight': _times(weight, loss, part.name)} for key, loss in losses.items()}
            rows = {} if on_maps else dict(selector=recipe.selector if selector is None else _selector(selector))
            there = alignments.get(name)
            if there is not None and there.get('selector') == rows.get('selector'):
                there['losses'].update(losses)
            else:
                key = name if there is None else f'{name}_{part.name}'
                alignments[key] = dict(aligner=aligner, **rows, losses=losses)
    return copy.deepcopy(alignments)


def _times(weight: float | str | dict, loss: dict, method: str) -> float | str | dict:
    """The weight of one of a method's losses, of which each may have a share."""
    if 'loss_weight' not in loss:
        return weight
    if not isinstance(weight, int | float):
        raise ValueError(f'`method={method!r}` has several losses, weighed together by a number, and `loss_weight` is '
                         f'{weight!r}; give a number, or write the losses in a config.')
    return weight * loss['loss_weight']


def _recipe(method: str, aligner: str) -> Recipe:
    if method not in RECIPES[aligner]:
        needed = frozenset().union(*(MODELS.get(loss['type']).requires for loss in METHODS[method].values()))
        why = [reason for what, reason in TASK_UTILS.get(aligner).lacks.items() if what in needed]
        raise ValueError(f'`method={method!r}` has no recipe for the rows of a {aligner}'
                         f'{"".join(f" ({reason})" for reason in why)}; take one of '
                         f'{", ".join([*RECIPES[aligner], *RECIPES["NeckAligner"]])}.')
    return RECIPES[aligner][method]


def _rows_of(alignment: Mapping[str, Any]) -> str:
    """What the selectors leave, in words."""
    if 'selector' not in alignment:
        return 'maps'
    chain = alignment['selector'] if isinstance(alignment['selector'], list) else [alignment['selector']]
    return f'the rows of {", then ".join(map(_call, chain))}'


def _selector(selector: str | dict | Sequence[str | dict]) -> dict | list[dict]:
    """Configs from ``'Foreground+PerImageCap:32'``, a config, or a list of either."""
    parts = selector.split('+') if isinstance(selector, str) else selector
    if isinstance(parts, dict):
        return parts
    configs = [_one_selector(part) if isinstance(part, str) else part for part in parts]
    return configs[0] if len(configs) == 1 else configs


def _one_selector(text: str) -> dict:
    name, colon, k = text.partition(':')
    if colon and not k.isdecimal():
        raise ValueError(f'`selector` needs a whole number after the colon, as in TeacherTopK:512, got {text!r}.')
    return dict(type=name, k=int(k)) if colon else dict(type=name)


def _roi_stages(student: nn.Module, teacher: nn.Module) -> dict[str, dict]:
    heads = [getattr(getattr(model, 'roi_head', None), 'bbox_head', None) for model in (student, teacher)]
    stages = [len(head) for head in heads if isinstance(head, nn.ModuleList)]
    if len(stages) == 2:
        return {f'roi{stage}': dict(type='RoIAligner', stage=stage) for stage in range(min(stages))}
    return dict(roi=dict(type='RoIAligner', stage=stages[0] - 1) if stages else dict(type='RoIAligner'))


def _student_config(student: str | Path | Config) -> Config:
    cfg = copy.deepcopy(student) if isinstance(student, Config) else read_config(student)
    if 'model' not in cfg:
        raise ValueError(f'`student` needs a config with a `model`, {_named(student)} has none.')
    if cfg.model.get('type') == DISTILLER:
        raise ValueError(f'`student` needs the config of a plain detector, {_named(student)} is distilled already; '
                         'train it as it is, without `--teacher`.')
    return cfg


def _teacher(teacher: str | Path | Config, checkpoint: str | Path | None) -> dict:
    """The Distiller's ``teacher``; a name stays a name, of a config that was read what a FrozenTeacher looks at."""
    config: str | dict
    if isinstance(teacher, Config):
        config = {key: teacher.to_dict()[key] for key in ('default_scope', 'model', 'data_preprocessor')
                  if teacher.get(key)}
        names = class_names(teacher)
        if names:
            config['train_dataloader'] = dict(dataset=dict(metainfo=dict(classes=names)))
    else:
        config = str(teacher)
    read_teacher_config(config)  # an unreadable one is told before a missing checkpoint
    return dict(config=config, checkpoint=str(checkpoint or zoo_address(config)))


def _aligner(cfg: dict) -> Aligner:
    return build_part(TASK_UTILS, cfg, Aligner, '`aligner`')


def _short(kind: str) -> str:
    return kind.removesuffix('Aligner').lower()


def _named(config: str | Path | Config | dict) -> str:
    if isinstance(config, str | Path):
        return str(config)
    return getattr(config, 'filename', None) or 'a given config'


def _call(cfg: Mapping[str, Any]) -> str:
    """``TeacherTopK(k=1024)`` from its config."""
    given = ', '.join(f'{key}={value!r}' for key, value in cfg.items() if key != 'type' and value is not None)
    return f'{cfg["type"]}({given})' if given else cfg['type']


def _few(names: Sequence[str], most: int = 12) -> str:
    return ', '.join(names[:most]) + (', ...' if len(names) > most else '')
