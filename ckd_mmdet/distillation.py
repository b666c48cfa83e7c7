"""One training step of a distilled student: listen, ask, compare."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from ckd_mmdet.aligners import features_of, levels_of
from ckd_mmdet.alignment import Alignment, bare_name
from ckd_mmdet.balance import balanced, gradient_ratios
from ckd_mmdet.joining import count_positives, join_ranks
from ckd_mmdet.judgement import TeacherJudgement
from ckd_mmdet.losses import DistillLoss
from ckd_mmdet.pairing import Pairing, RowPairing, pair
from ckd_mmdet.ranks import stopping_together
from ckd_mmdet.samples import AlignedMaps, AlignedSamples
from ckd_mmdet.taps import ModuleTap
from ckd_mmdet.teacher import FrozenTeacher
from mmengine.dist import get_world_size
from mmengine.logging import MessageHub, print_log
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

LOGGED = 'ckd_mmdet.logged'
"""Whether what this step measures is logged; ``DistillHook`` says so through MMEngine's ``MessageHub``."""

UNMEASURED = {'use_reentrant': 'reentrant activation checkpointing (`with_cp`, `num_cp`)',
              'donated buffers': 'a compiled backward pass (`compile`)'}
"""What keeps gradients from being taken twice, by a part of PyTorch's error."""


class Distillation:
    """The teachers and what is compared with each; the student is given to every call.

    Args:
        teachers: By the names that the alignments give; a single one has the name ``None``.
        alignments: By name; none where the student only inherits.
        inherits: Whether the student starts from the teacher's neck and head, see
            :class:`ckd_mmdet.inheritance.Inheriting`.
    """

    def __init__(self, teachers: Mapping[str | None, FrozenTeacher], alignments: Mapping[str, Alignment],
                 inherits: bool = False) -> None:
        self.teachers = teachers
        self.alignments = alignments
        self.inherits = inherits
        self.pairings: dict[str, Pairing] | None = None
        """By the alignment's name; ``None`` until :meth:`pair`, before which no step is taken."""
        self.judgements: dict[str, TeacherJudgement] = {}
        """By the alignment's name, while it is not known yet whether the teacher is right there."""
        self._measures_gradients = True

    @property
    def losses(self) -> dict[str, DistillLoss]:
        """Every loss, by ``<alignment>.<loss>``."""
        return {f'{name}.{key}': loss for name, alignment in self.alignments.items()
                for key, loss in alignment.losses.items()}

    def pair(self, student: nn.Module, classes: Sequence[str | None] | None) -> None:
        """Pair the student with its teachers, once the names of its classes are known.

        Args:
            student: The student.
            classes: Name of each of its classes in the order of its scores, or ``None`` where they have none.

        Raises:
            ValueError: If models or classes cannot be paired.
        """
        pairings = {name: pair(alignment, student, self.teachers[alignment.teacher], classes)
                    for name, alignment in self.alignments.items()}
        self.judgements = {name: TeacherJudgement(len(pairing.classes)) for name, pairing in pairings.items()
                           if isinstance(pairing, RowPairing) and self._teacher_of(name).check_accuracy}
        self.pairings = pairings

    def step(self, student: BaseModel, forward: Callable[..., dict], inputs: Tensor,
             data_samples: Sequence[BaseDataElement] | None) -> dict[str, Any]:
        """Losses of a batch: the student's own, and beside them ``<alignment>.<loss>``.

        In the steps that the Runner logs, others are measured: where rows are paired, ``<alignment>.rows``,
        ``.cosine``, ``.retrieval`` (see :func:`ckd_mmdet.functional.agreement`) and ``.teacher_accuracy``, the share of
        foreground rows whose label is the teacher's greatest score; ``.preview_..._<loss>`` of a loss with preview; and
        ``.gradient_ratio_<loss>``, see :func:`ckd_mmdet.balance.gradient_ratios`. An alignment that has ended gives
        losses of 0.

        Args:
            student: The student.
            forward: Its own ``forward``.
            inputs: Shape ``(N, 3, h, w)``.
            data_samples: ``N`` of them.

        Raises:
            RuntimeError: If :meth:`pair` was not called, the student's head behaves otherwise than an aligner needs, or
                the teacher gives numbers that are not finite.
        """
        hub = MessageHub.get_current_instance()
        epoch, logged = hub.get_info('epoch', 0), hub.get_info(LOGGED, True)
        # 1. the student trains as if alone, recorded
        task, tapes, features = self._listen(student, forward, inputs, data_samples,
                                             self._measures(student, epoch, logged))
        with self._naming_layers(inputs, data_samples), stopping_together(inputs.device) as faults:
            # 2. the teacher answers for the same rows and maps
            aligned = self._ask(epoch, tapes, inputs, data_samples, faults)
            # 3. pure tensors from here on
            joining = self._joining(aligned)
            found = {} if joining else self._compare(aligned, inputs, epoch, logged)
        if joining:  # some losses look at the rows of all ranks
            aligned.update({name: self._joined(name, one) for name, one in joining.items()})
            with stopping_together(inputs.device):
                found = self._compare(aligned, inputs, epoch, logged)
        if features is not None:
            found.update(self._balance(student, task, found, levels_of(features.calls[-1].output), epoch))
        return {**task, **found}

    @contextmanager
    def _naming_layers(self, inputs: Tensor, data_samples: Sequence[BaseDataElement] | None) -> Iterator[None]:
        """Say of a teacher whose answer is not finite which of its layers is the first that gives such values."""
        try:
            yield
        except RuntimeError as error:
            for teacher in self.teachers.values():
                if str(error).startswith(teacher.complaint):
                    raise RuntimeError(f'{error} {teacher.first_broken(inputs, data_samples or ())}') from error
            raise

    def align(self, student: nn.Module, forward: Callable[..., dict], inputs: Tensor,
              data_samples: Sequence[BaseDataElement] | None) -> dict[str, AlignedSamples | AlignedMaps]:
        """What the losses of each alignment would be given; arguments and errors as of :meth:`step`."""
        _, tapes, _ = self._listen(student, forward, inputs, data_samples, with_features=False)
        with stopping_together(inputs.device) as faults:
            return self._ask(0, tapes, inputs, data_samples, faults)

    def _listen(self, student: nn.Module, forward: Callable[..., dict], inputs: Tensor,
                data_samples: Sequence[BaseDataElement] | None, with_features: bool
                ) -> tuple[dict[str, Any], dict[str, Any], ModuleTap | None]:
        """The student's own losses, what each alignment recorded, and the call that gave the student's features."""
        if self.pairings is None:
            raise RuntimeError(
                'a distilled student needs `DistillHook` to train: it pairs the classes, once the data set is known, '
                "and checks the teacher's accuracy. Train with ckd_mmdet's tools/train.py, which adds it, or add "
                "`dict(type='ckd_mmdet.DistillHook')` to `custom_hooks`.")
        with ExitStack() as recording:
            features = recording.enter_context(features_of(student)) if with_features else None
            # ended alignments too: of several views of an image, the student's own loss shall see the plain one only
            tapes = {name: recording.enter_context(pairing.listen(student))
                     for name, pairing in self.pairings.items()}
            return dict(forward(inputs, data_samples, mode='loss')), tapes, features

    def _teacher_of(self, alignment: str) -> FrozenTeacher:
        return self.teachers[self.alignments[alignment].teacher]

    def _going_on(self, epoch: int) -> list[str]:
        """Names of the alignments with a loss that is not over."""
        return [name for name, alignment in self.alignments.items() if not alignment.has_ended(epoch)]

    def _ask(self, epoch: int, tapes: Mapping[str, Any], inputs: Tensor,
             data_samples: Sequence[BaseDataElement] | None, faults: dict[str, Tensor]
             ) -> dict[str, AlignedSamples | AlignedMaps]:
        """What is compared, of the alignments that go on; what must not be goes into ``faults``."""
        assert self.pairings is not None and data_samples is not None
        going_on = self._going_on(epoch)
        feats = {name: self.teachers[name].extract_feat(inputs, data_samples)
                 for name in dict.fromkeys(self.alignments[name].teacher for name in going_on)}
        aligned = {}
        for name in going_on:
            teacher = self._teacher_of(name)
            aligned[name], found = self.pairings[name].ask(teacher.model, feats[self.alignments[name].teacher],
                                                           tapes[name], data_samples)
            faults.update({f'`alignments.{name}`: {text}': flag for text, flag in found.items()})
            faults.update(teacher.faults(aligned[name].teacher))
        return aligned

    def _joining(self, aligned: Mapping[str, AlignedSamples | AlignedMaps]) -> dict[str, AlignedSamples]:
        """The rows that other ranks need; they are to be joined, where no rank stops alone."""
        if get_world_size() == 1:
            return {}
        return {name: one for name, one in aligned.items() if isinstance(one, AlignedSamples)
                and any(loss.needs_all_ranks or loss.counts_positives
                        for loss in self.alignments[name].losses.values())}

    def _joined(self, name: str, one: AlignedSamples) -> AlignedSamples:
        """The rows with what the alignment's losses need of other ranks."""
        losses = self.alignments[name].losses.values()
        if any(loss.counts_positives for loss in losses):
            one = count_positives(one)
        return join_ranks(one) if any(loss.needs_all_ranks for loss in losses) else one

    def _compare(self, aligned: Mapping[str, AlignedSamples | AlignedMaps], inputs: Tensor, epoch: int, logged: bool
                 ) -> dict[str, Any]:
        """Losses, and where they are logged what is measured beside them."""
        found: dict[str, Any] = {}
        for name, alignment in self.alignments.items():
            one = aligned.get(name)
            numbers = alignment.ended(inputs.device) if one is None else alignment.compare(one, epoch=epoch)
            if one is not None and logged:
                numbers = {**numbers, **alignment.measure(one, epoch=epoch)}
            if one is not None and name in self.judgements:
                self.judgements[name].count(one)
            found.update({f'{name}.{key}': value for key, value in numbers.items()})
        return found

    def judge(self) -> None:
        """Stop a run whose teacher classifies at chance level; every rank calls it at the same step.

        Raises:
            RuntimeError: If it does.
        """
        for name, judgement in list(self.judgements.items()):
            if judgement.verdict(self._teacher_of(name).name):
                del self.judgements[name]

    def _measures(self, student: nn.Module, epoch: int, logged: bool) -> bool:
        """Whether the losses' gradients at the student's features are measured in this step."""
        weights = [loss.weight for name in self._going_on(epoch) for loss in self.alignments[name].losses.values()]
        return student.training and bool(weights) and (logged and self._measures_gradients or any(
            weight.is_measuring and not weight.has_ended(epoch) for weight in weights))

    def _balance(self, student: BaseModel, task: dict[str, Any], found: Mapping[str, Any],
                 features: Sequence[Tensor], epoch: int) -> dict[str, Any]:
        """Measured ratios, and the losses whose weight they change."""
        going_on = self._going_on(epoch)
        parts = {name: loss for name, loss in self.losses.items() if name.partition('.')[0] in going_on}
        balances = [name for name, loss in parts.items() if loss.weight.is_measuring]
        if not any(level.requires_grad for level in features):
            if balances:
                raise RuntimeError(f"`loss_weight='balance:...'` of {', '.join(balances)} is measured at the student's "
                                   'features, and these are frozen; give a number.')
            return {}
        ratios = self._ratios(student, task, {name: found[name] for name in parts}, features, balances)
        changed: dict[str, Any] = {}
        for name, ratio in ratios.items():
            alignment, _, key = name.partition('.')
            changed[f'{alignment}.gradient_ratio_{bare_name(key)}'] = found[name].new_tensor(ratio)
            if parts[name].weight.is_measuring:
                changed[name] = balanced(parts[name], found[name], ratio, epoch, name)
        return changed

    def _ratios(self, student: BaseModel, task: dict[str, Any], losses: dict[str, Tensor], features: Sequence[Tensor],
                balances: Sequence[str]) -> dict[str, float]:
        try:
            return gradient_ratios(student.parse_losses(task)[0], losses, features)
        except RuntimeError as error:
            why = next((why for part, why in UNMEASURED.items() if part in str(error)), None)
            if why is None:
                raise
            if balances:
                raise RuntimeError(f"`loss_weight='balance:...'` of {', '.join(balances)} cannot be measured through "
                                   f'{why}; give a number, or switch that off.') from error
            self._measures_gradients = False  # a mere log ends no run
            print_log(f'`gradient_ratio` is not logged: gradients cannot be measured through {why}.', logger='current',
                      level=logging.WARNING)
            return {}

    def state(self) -> dict[str, dict]:
        """What the losses learned and measured, by ``<alignment>.<loss>``; on the CPU."""
        return {name: {key: value.cpu() if isinstance(value, Tensor) else value
                       for key, value in loss.state_dict().items()} for name, loss in self.losses.items()}

    def load_state(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Take back what :meth:`state` gave.

        Raises:
            ValueError: If it is that of other alignments or losses.
        """
        losses = self.losses
        if set(state) != set(losses):
            raise ValueError('the run to be resumed distilled by other losses: its checkpoint has '
                             f'{", ".join(sorted(state)) or "none"}, the config {", ".join(sorted(losses))}; give the '
                             'same `alignments`, or start a new run with `load_from` instead of `--resume`.')
        for name, loss in losses.items():
            try:
                loss.load_state_dict(state[name])
            except RuntimeError as error:
                raise ValueError(f'`{name}` has learned other parts in the run to be resumed: '
                                 f'{str(error).splitlines()[-1].strip()} Give the same `alignments` and models.'
                                 ) from error
