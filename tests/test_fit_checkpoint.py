"""A tested checkpoint fits the model, and its classes the labels of the data."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ckd_mmdet.fit_checkpoint import FitCheckpoint

from tests.test_checkpoints import Net
from tests.test_labels import FILE_ORDER, GIVEN, coco


def loaded(dataset: Any, checkpoint: dict) -> dict:
    runner = SimpleNamespace(model=Net(), test_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset)))
    FitCheckpoint('x.pth').after_load_checkpoint(runner, checkpoint)
    return checkpoint


def of_classes(*names: str) -> dict:
    return dict(state_dict=Net().state_dict(), meta=dict(dataset_meta=dict(classes=names)))


def test_the_runner_loads_what_was_fitted(tmp_path: Path) -> None:
    weights = {f'model.{key}': value for key, value in Net().state_dict().items()}
    for checkpoint in (dict(state_dict=weights, meta={}), dict(weights)):
        assert set(loaded(coco(tmp_path), checkpoint)['state_dict']) == set(Net().state_dict())
    with pytest.raises(ValueError, match="`checkpoint` needs the weights of the model of the config, 'x.pth' does not"):
        loaded(coco(tmp_path), dict(state_dict=Net(3).state_dict()))


@pytest.mark.parametrize(('names', 'given'), [
    (FILE_ORDER, FILE_ORDER),
    (FILE_ORDER, GIVEN),  # ours, which has the true order
    (GIVEN, GIVEN),  # of MMDetection's own training, which has the config's
    (('un', 'deux', 'trois'), FILE_ORDER),
    (('zero', 'third', 'seven'), FILE_ORDER),
])
def test_the_same_classes_are_tested(names: tuple[str, ...], given: tuple[str, ...], tmp_path: Path) -> None:
    assert loaded(coco(tmp_path, given), of_classes(*names))


@pytest.mark.parametrize('names', [GIVEN, ('seven', 'zero', 'three'), ('x', 'zero', 'three')])
def test_classes_in_another_order_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    # MMEngine tests them without a word: an mAP near 0, or one of other classes
    with pytest.raises(ValueError, match=r"`checkpoint` needs the classes of the test data in their order; 'zero' is "
                                         rf"class 1 in 'x.pth' and label 0 in .*order, '{names[0]}', 'zero'"):
        loaded(coco(tmp_path, FILE_ORDER), of_classes(*names))
