"""Which classes are shared, and which columns then mean the same."""

from __future__ import annotations

import pytest
import torch
from ckd_mmdet.classes import Scoring, SharedClasses, match_classes, shared_columns

COCO = ('person', 'car', 'dog', 'cat')


def test_equal_names_are_paired_in_the_students_order() -> None:
    assert match_classes(('cat', 'tree', 'person'), COCO, 'name') == SharedClasses((0, 2), (3, 0))


def test_a_dict_pairs_names_that_differ() -> None:
    assert match_classes(('auto', 'cat'), COCO, {'auto': 'car'}) == SharedClasses((0,), (1,))


@pytest.mark.parametrize('student, class_map, message', [
    (('tree', 'bush'), 'name', "finds no class that student and teacher share. The student knows 'tree', 'bush'; the "
                               "teacher knows 'person', 'car', 'dog', 'cat'"),
    (('auto',), {'car': 'car'}, "names 'car', which the student does not know; it knows 'auto'"),
    (('auto',), {'auto': 'tram'}, "names 'tram', which the teacher does not know; it knows 'person', 'car', 'dog'"),
    (('auto', 'bus'), {'auto': 'car', 'bus': 'car'}, "needs another class of the teacher for each of the student's"),
    (('auto',), {}, 'needs at least one pair of classes, got an empty dict'),
    (('auto',), 'names', "needs to be 'name' or a dict from the student's names to the teacher's, got 'names'"),
])
def test_a_map_that_makes_no_sense_is_refused(student: tuple, class_map: str | dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        match_classes(student, COCO, class_map)


def test_labels_become_numbers_of_shared_classes() -> None:
    shared = SharedClasses((3, 0), (7, 2))
    labels = torch.tensor([0, 1, 2, 3, 4, -1, -100])  # 4 is background
    assert shared.labels(labels, 4).tolist() == [1, -2, -2, 0, 2, -1, -1]


def test_all_classes_leave_scores_and_labels_as_they_are() -> None:
    shared, scores = SharedClasses.all(3), torch.randn(5, 4)
    assert shared_columns(scores, Scoring(3, True), shared.student, True) is scores
    labels = torch.tensor([0, 1, 2, 3, -1])
    assert torch.equal(shared.labels(labels, 3), labels)


def test_a_sigmoid_heads_columns_are_picked() -> None:
    scores = torch.arange(8.0).reshape(2, 4)
    assert shared_columns(scores, Scoring(4, False), (3, 0), False).tolist() == [[3, 0], [7, 4]]


def test_without_background_a_softmax_heads_last_column_is_left_out() -> None:
    scores = torch.arange(8.0).reshape(2, 4)
    assert shared_columns(scores, Scoring(3, True), (0, 1, 2), False).tolist() == [[0, 1, 2], [4, 5, 6]]


def test_classes_that_are_not_shared_count_as_background() -> None:
    """The probabilities of the shared classes stay what they were; background is what is left."""
    torch.manual_seed(0)
    scores = torch.randn(6, 5, dtype=torch.float64)
    before, after = scores.softmax(1), shared_columns(scores, Scoring(4, True), (2, 0), True).softmax(1)
    for row in range(6):
        p = before[row].tolist()
        assert after[row].tolist() == pytest.approx([p[2], p[0], p[1] + p[3] + p[4]], rel=1e-12)


def test_a_name_of_two_classes_pairs_nothing() -> None:
    cranes = ('crane', 'ant', 'crane')
    for student, teacher in ((cranes, ('crane', 'bee')), (('crane', 'bee'), cranes)):
        for class_map in ('name', dict(crane='crane')):
            with pytest.raises(ValueError, match="several called 'crane'"):
                match_classes(student, teacher, class_map)
    assert len(match_classes(('crane', 'ant', 'crane'), ('crane', 'bee'), dict(ant='bee'))) == 1
