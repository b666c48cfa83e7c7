"""What holds for every aligner on every head it serves."""

import copy
from collections.abc import Iterator

import ckd_mmdet.aligners  # noqa: F401  registers them
import ckd_mmdet.classification.aligner  # noqa: F401
import pytest
import torch
from ckd_mmdet.aligners import Aligner
from ckd_mmdet.registry import TASK_UTILS
from ckd_mmdet.samples import AlignedSamples, is_foreground
from torch import Tensor, nn

from tests.aligners.scenes import CASES, ask, copied, hear, prepared, sampling_everything, task_loss, training
from tests.toys import toy_batch, toy_config, toy_model


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Aligner, dict]:
    kind, detector, arguments = CASES[request.param]
    return TASK_UTILS.get(kind)(**arguments), toy_config(detector)


@pytest.fixture
def aligner(case: tuple[Aligner, dict]) -> Aligner:
    return case[0]


@pytest.fixture
def student(case: tuple[Aligner, dict]) -> nn.Module:
    return training(toy_model(case[1]))


def same_rows(one: AlignedSamples, other: AlignedSamples, rows: Tensor | slice = slice(None)) -> None:
    """Assert that ``one`` holds the given rows of ``other``, to the last bit."""
    assert torch.equal(one.student.logits, other.student.logits[rows])
    assert torch.equal(one.teacher.logits, other.teacher.logits[rows])
    assert torch.equal(one.labels, other.labels[rows])
    assert torch.equal(one.image_ids, other.image_ids[rows])


def hooks(model: nn.Module) -> Iterator[str]:
    for name, module in model.named_modules():
        for kind in ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_forward_hooks_with_kwargs'):
            if getattr(module, kind):
                yield f'{name}.{kind}'


def states(model: nn.Module) -> dict[str, set[str]]:
    return {name: set(vars(module)) for name, module in model.named_modules()}


def test_every_aligner_is_tried() -> None:
    registered = {name for name, part in TASK_UTILS.module_dict.items() if issubclass(part, Aligner)}
    # those of maps and of classifiers have files of their own
    assert registered == {kind for kind, _, _ in CASES.values()} | {'NeckAligner', 'ImageAligner'}


def test_a_teacher_that_is_the_student_gives_the_same_rows(aligner: Aligner, student: nn.Module) -> None:
    teacher = copied(student)
    aligner.scorings(student, teacher)
    aligned = ask(aligner, teacher, hear(aligner, student))
    assert len(aligned) >= 6
    assert torch.equal(aligned.student.logits, aligned.teacher.logits)
    assert len(aligned.student.logits.unique(dim=0)) > len(aligned) // 2  # or equal rows would say little


def test_another_teacher_gives_other_rows(aligner: Aligner, student: nn.Module, case: tuple[Aligner, dict]) -> None:
    aligned = ask(aligner, toy_model(case[1], seed=1).eval(), hear(aligner, student))
    assert (aligned.student.logits != aligned.teacher.logits).any(1).all()


def test_the_student_learns_and_the_teacher_does_not(aligner: Aligner, student: nn.Module) -> None:
    teacher = copied(student)  # with requires_grad left on
    aligned = ask(aligner, teacher, hear(aligner, student))
    assert not aligned.teacher.logits.requires_grad
    aligned.student.logits.square().sum().backward()
    learning = [name for name, part in student.named_parameters() if part.grad is not None and part.grad.any()]
    reached = {name.split('.')[0] for name in learning}
    assert {'backbone', 'neck'} < reached
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_students_losses_are_the_same_to_the_last_bit(aligner: Aligner, student: nn.Module) -> None:
    inputs, data_samples = prepared(student)
    torch.manual_seed(0)
    alone = student(inputs, data_samples, mode='loss')
    drawn = torch.rand(1)
    heard = hear(aligner, student)
    assert torch.rand(1) == drawn
    assert alone.keys() == heard.losses.keys()
    for key, value in alone.items():
        one, other = (torch.stack(loss) if isinstance(loss, list) else loss for loss in (value, heard.losses[key]))
        assert torch.equal(one, other), key


def test_asking_draws_no_random_number_and_leaves_the_students_gradient(aligner: Aligner, student: nn.Module) -> None:
    alone, teacher = copy.deepcopy(student), copied(student)
    task_loss(hear(aligner, alone).losses).backward()
    heard = hear(aligner, student)
    state = torch.get_rng_state()
    ask(aligner, teacher, heard)
    assert torch.equal(torch.get_rng_state(), state)
    task_loss(heard.losses).backward()
    for one, other in zip(student.parameters(), alone.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.equal(one.grad, other.grad)


def test_nothing_stays_behind(aligner: Aligner, student: nn.Module) -> None:
    teacher, before = copied(student), (dict(vars(aligner)), states(student))
    heard = hear(aligner, student)
    assert not list(hooks(student))
    ask(aligner, teacher, heard)
    assert not [*hooks(student), *hooks(teacher)]
    assert (dict(vars(aligner)), states(student)) == before
    copy.deepcopy(student)  # fails where a module keeps a tensor of the graph
    copy.deepcopy(aligner)


def test_nothing_stays_behind_after_an_exception(aligner: Aligner, student: nn.Module) -> None:
    with pytest.raises(ZeroDivisionError), aligner.listen(student):
        assert list(hooks(student))
        raise ZeroDivisionError
    assert not list(hooks(student))


def test_a_second_step_does_not_remember_the_first(aligner: Aligner, student: nn.Module) -> None:
    teacher = copied(student)
    first = ask(aligner, teacher, hear(aligner, student))
    hear(aligner, student, toy_batch(num_items=[1, 1], with_mask=student.with_mask), seed=5)
    same_rows(ask(aligner, teacher, hear(aligner, student)), first)


def test_picked_rows_are_those_rows(aligner: Aligner, student: nn.Module) -> None:
    teacher, heard, rows = copied(student), hear(aligner, student), torch.tensor([1, 3, 2])
    same_rows(ask(aligner, teacher, heard, rows), ask(aligner, teacher, heard), rows)


def test_no_row_keeps_the_graph(aligner: Aligner, student: nn.Module) -> None:
    aligned = ask(aligner, copied(student), hear(aligner, student), torch.zeros(0, dtype=torch.long))
    assert len(aligned) == 0
    assert aligned.student.logits.requires_grad


def test_swapped_images_swap_their_rows(aligner: Aligner, case: tuple[Aligner, dict]) -> None:
    student = training(toy_model(sampling_everything(case[1])))
    teacher = toy_model(case[1], seed=1).eval()
    batch = toy_batch(num_items=[3, 5], with_mask=student.with_mask)
    swapped = {key: value[::-1] for key, value in batch.items()}
    straight = ask(aligner, teacher, hear(aligner, student, batch))
    crossed = ask(aligner, teacher, hear(aligner, student, swapped))
    for image in (0, 1):
        here, there = straight.image_ids == image, crossed.image_ids == 1 - image
        assert here.sum() == there.sum() >= 3
        assert torch.equal(straight.labels[here], crossed.labels[there])
        for one, other in ((straight.student, crossed.student), (straight.teacher, crossed.teacher)):
            torch.testing.assert_close(one.logits[here], other.logits[there], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('boxes', [[0, 0], [0, 4]], ids=['no ground truth', 'one image without'])
def test_a_batch_without_ground_truth_trains_on(aligner: Aligner, student: nn.Module, boxes: list[int]) -> None:
    heard = hear(aligner, student, toy_batch(num_items=boxes, with_mask=student.with_mask))
    aligned = ask(aligner, copied(student), heard)
    assert torch.equal(aligned.student.logits, aligned.teacher.logits)
    assert not is_foreground(aligned.labels[aligned.image_ids == 0], aligned.num_classes).any()
    (task_loss(heard.losses) + aligned.student.logits.sum()).backward()
