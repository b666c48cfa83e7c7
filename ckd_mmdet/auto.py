"""From two untouched configs to a distilled one: which aligner, which rows, which loss, and why."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ckd_mmdet.aligners import equal_strides
from ckd_mmdet.alignment import pair_kind
from ckd_mmdet.choice import Choice, choose_alignment
from ckd_mmdet.config import DISTILLER, add_hook, inner_datasets, read_config
from ckd_mmdet.config_classes import pair_classes
from ckd_mmdet.explanation import explain, named
from ckd_mmdet.fit import check_alignments, check_inputs
from ckd_mmdet.inheritance import inheritance
from ckd_mmdet.method_options import INHERIT, Part, parse_method, read_selector, split_inherit, student_options
from ckd_mmdet.options import merge_options
from ckd_mmdet.recipes import AUTO, METHODS, RECIPES, SUITS, Recipe, as_commands, methods_for, of_maps, recommended
from ckd_mmdet.registry import MODELS, TASK_UTILS
from ckd_mmdet.teacher import build_model, read_teacher_config, zoo_address
from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn


def distill_config(student: str | Path | Config, teacher: str | Path | Config | None, method: str = 'ckd', *,
                   teacher_checkpoint: str | Path | None = None, loss_weight: float | str | dict | None = None,
                   selector: str | dict | Sequence[str | dict] | None = None,
                   class_map: str | Mapping[str, str] | None = None,
                   options: Mapping[str, Any] | None = None) -> Config:
    """The student's whole config, with a teacher in it; what was chosen is printed, and why.

    Both models are built once, with random weights, to see what they are; nothing is downloaded. What was chosen
    stands in ``model.alignments`` of the result, the reasons in ``distillation``.

    Args:
        student: A plain config: a path, ``'mmdet::...'``, or one already read.
        teacher: The same of the teacher; not looked at by the method ``'none'``.
        method: One of :data:`METHODS`, or several joined by ``+``, each with its weight after a colon where it is not
            the recipe's: ``'ckd:0.5+pkd'``, ``'l2:balance:0.5'``. ``'auto'`` is the one that gave most between such
            heads, :func:`ckd_mmdet.recipes.recommended`. ``'none'`` gives the student's own config, seeded as
            the distilled one is. ``+inherit`` beside any of them lets the student start from the teacher's neck and
            head where names and shapes agree.
        teacher_checkpoint: Path or address of its weights; of an ``mmdet::`` config the model zoo's by default.
        loss_weight: Instead of the recipe's, for every method that has none of its own: a number, a schedule, or
            ``'balance:0.5'``, see :class:`ckd_mmdet.losses.Weight`.
        selector: Instead of the recipe's, where rows are paired: ``'Foreground'``, ``'TeacherTopK:512'``, several in
            turn joined by ``+`` or in a list; or configs of them.
        class_map: As the teacher's, see :func:`ckd_mmdet.classes.match_classes`; by default ``'name'`` where the
            class names of the two configs differ.
        options: Overrides of the distilled config by dotted keys, ``model.student.x`` for the student; merged before
            anything is checked.

    Returns:
        A config for the Runner; it equals itself after ``dump`` and ``Config.fromfile``.

    Raises:
        ValueError: If an argument is unknown, the models cannot be paired, or the loss makes no sense between them.
    """
    wanted, options = parse_method(method), dict(options or {})
    cfg = _student_config(student)
    merge_options(cfg, options if method == 'none' else student_options(options))
    if method == 'none':
        add_hook(cfg)
        return cfg
    plain, inherits = split_inherit(method)
    of_rows = plain == AUTO or any(not of_maps(part.name) for part in wanted)
    _check_wishes(method, wanted, teacher, selector if not of_rows else None)
    taught_by = _teacher(teacher, teacher_checkpoint)
    teacher_config = read_teacher_config(taught_by['config'])
    models = build_model(cfg), build_model(teacher_config)
    choice = choose_alignment(*models) if of_rows else Choice({}, None, [])
    wanted, said = _best(choice) if plain == AUTO else (wanted, [])
    made = Config(cfg.to_dict(), cfg_text=f'# by ckd_mmdet.distill_config, method {method}',
                  filename=f'{run_name(cfg.filename, method, teacher)}.py')  # the Runner's name for what it dumps
    made.model = dict(type=DISTILLER, student=cfg.model, teacher=taught_by,
                      alignments=_alignments(choice, wanted, loss_weight, selector, not hasattr(models[0], 'roi_head')))
    if inherits:
        made.model.inherit = True
        said.append(f'{INHERIT}: {len(inheritance(*models).taken)} weights of neck and head agree in name and shape')
    merge_options(made, options)
    levels = _pair_levels(made.model.alignments, *models)
    check_inputs(made, *models)
    pairing = pair_classes(cfg, teacher_config, choice.scorings, made.model.teacher.get('class_map') or class_map)
    if pairing.class_map is not None:
        made.model.teacher.class_map = pairing.class_map
    rows = check_alignments(made.to_dict()['model']['alignments'], *models, pairing.class_map is not None,
                            pairing.shared)
    made.distillation = dict(method=said, aligner=[*choice.reasons[:1], *levels], refused=choice.reasons[1:], rows=rows,
                             classes=pairing.why if made.model.alignments else 'looked at as the run starts')
    add_hook(made)
    if os.environ.get('RANK', '0') == '0':  # no process group yet: each process of a launcher comes here
        print_log(explain(made))
    return made


def _best(choice: Choice) -> tuple[list[Part], list[str]]:
    """What the method ``auto`` stands for, and that in words."""
    assert choice.scorings is not None  # rows are paired, or it was refused
    aligner = next(iter(choice.aligners.values()))['type']
    name, why = recommended(aligner, pair_kind(choice.scorings), min(one.num_classes for one in choice.scorings))
    return [Part(name, None)], [f'{name}: {why}']


def _check_wishes(method: str, wanted: Sequence[Part], teacher: object, selector: object) -> None:
    """Refuse what is missing, and a ``selector`` where no rows are compared."""
    if teacher is None:
        raise ValueError(f'`method={method!r}` needs a `teacher`; to train the student alone, take `none`.')
    if selector is not None:
        pairs = 'pairs feature maps, all of them' if wanted else 'pairs nothing'
        raise ValueError(f'`selector` chooses rows, and `method={method!r}` {pairs}; leave the selector out, or join a '
                         'method of rows with +.')


def run_name(student: str | None, method: str, teacher: str | Path | Config | None) -> str:
    """Name of a run: ``<student>_<method>_<teacher>``, each by its config's file name."""
    if isinstance(teacher, Config):
        teacher = teacher.filename
    named = [student or 'student'], [] if method == 'none' else [teacher or 'teacher']
    return '_'.join([*(Path(part).stem for part in named[0]), method.replace(':', '-'),
                     *(Path(part).stem for part in named[1])])


def _alignments(choice: Choice, parts: Sequence[Part], loss_weight: float | str | dict | None,
                selector: str | dict | Sequence[str | dict] | None, one_stage: bool) -> dict[str, dict]:
    """Alignments by name; methods on the same rows share one."""
    alignments: dict[str, dict] = {}
    # those that share the rows of others after these
    for part in sorted(parts, key=lambda part: _shares(part.name, choice)):
        maps = of_maps(part.name)
        for name, aligner in (dict(neck=dict(type='NeckAligner')) if maps else choice.aligners).items():
            recipe = _recipe(part.name, aligner['type'], choice)
            aligner = {**aligner, **recipe.aligner}
            weight = next(given for given in (part.loss_weight, loss_weight, recipe.loss_weight) if given is not None)
            settings = {**recipe.settings, **(recipe.one_stage if one_stage else {})}
            losses = {key: {**loss, **settings.get(key, {})} for key, loss in METHODS[part.name].items()}
            losses = {key: {**loss, 'loss_weight': _times(weight, loss, part.name)} for key, loss in losses.items()}
            rows = {} if maps else dict(selector=_rows(recipe, choice) if selector is None else read_selector(selector))
            there = alignments.get(name)
            if there is not None and there['aligner'] == aligner and (
                    recipe.shares or there.get('selector') == rows.get('selector')):
                twice = sorted(set(there['losses']) & set(losses))
                if twice:
                    raise ValueError(f'`method` joins {part.name} to another method that has {", ".join(twice)}, too; '
                                     'leave one of the two out.')
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


def _rows(recipe: Recipe, choice: Choice) -> dict | None:
    unlabelled = recipe.without_labels is not None and not choice.gives_labels
    return recipe.without_labels if unlabelled else recipe.selector


def _shares(method: str, choice: Choice) -> bool:
    return any(_recipe(method, aligner['type'], choice).shares for aligner in choice.aligners.values()
               if not of_maps(method))


def _recipe(method: str, aligner: str, choice: Choice) -> Recipe:
    recipe = RECIPES[aligner].get(method)
    kind = 'maps' if choice.scorings is None else pair_kind(choice.scorings)
    # an aligner that is asked for more than its default may find another kind of scores
    if recipe is not None and (not recipe.aligner or kind in SUITS[method]):
        return recipe
    needed = frozenset().union(*(MODELS.get(loss['type']).requires for loss in METHODS[method].values()))
    why = ''.join(f' ({reason})' for what, reason in TASK_UTILS.get(aligner).lacks.items() if what in needed)
    assert choice.scorings is not None  # of maps every method has a recipe
    fit = methods_for(aligner, kind, min(one.num_classes for one in choice.scorings))
    between = '' if recipe is None else f' between {kind} heads'
    raise ValueError(f'`method={method!r}` has no recipe for the rows of a {aligner}{between}{why}; take '
                     f'{as_commands([*fit, "l2"])}.')


def _pair_levels(alignments: dict[str, dict], student: nn.Module, teacher: nn.Module) -> list[str]:
    """Let maps of equal strides be paired where the config does not say which, in place; gives that in words."""
    said = []
    for name, alignment in alignments.items():
        aligner = alignment.get('aligner') or {}
        if aligner.get('type') != 'NeckAligner':  # one that is incomplete is refused below
            continue
        text = 'NeckAligner: the feature maps of both, level by level'
        if not {'levels', 'teacher_levels', 'resize'} & set(aligner):
            found = equal_strides(student, teacher)
            if not found.all_in_order:
                aligner.update(levels=found.student, teacher_levels=found.teacher)
                strides, ours, theirs = (', '.join(map(str, part))
                                         for part in (found.strides, found.student, found.teacher))
                text += f' of equal stride: {strides} (levels {ours} of the student, {theirs} of the teacher)'
        said.append(text if name == 'neck' else f'{text} ({name})')
    return said


def _student_config(student: str | Path | Config) -> Config:
    cfg = copy.deepcopy(student) if isinstance(student, Config) else read_config(student)
    if 'model' not in cfg:
        raise ValueError(f'`student` needs a config with a `model`, {named(student)} has none.')
    if cfg.model.get('type') == DISTILLER:
        raise ValueError(f'`student` needs the config of a plain detector, {named(student)} is distilled already; '
                         'train it as it is, without `--teacher`.')
    # types by their names: a pure-Python config has classes, of which MMEngine cannot dump those that were looked at
    return Config(cfg.to_dict(), cfg_text=cfg.text, filename=cfg.filename)


def _teacher(teacher: str | Path | Config, checkpoint: str | Path | None) -> dict:
    """The Distiller's ``teacher``; a name stays a name, of a config that was read what a FrozenTeacher looks at."""
    config: str | dict
    if isinstance(teacher, Config):
        whole = teacher.to_dict()
        config = {key: whole[key] for key in ('default_scope', 'model', 'data_preprocessor') if whole.get(key)}
        dataset = next(inner_datasets((whole.get('train_dataloader') or {}).get('dataset')), {})
        names = {key: dataset[key] for key in ('type', 'metainfo', 'classes') if dataset.get(key)}
        if names:
            config['train_dataloader'] = dict(dataset=names)
    else:
        config = str(teacher)
    read_teacher_config(config)  # an unreadable one is told before a missing checkpoint
    return dict(config=config, checkpoint=str(checkpoint or zoo_address(config)))
