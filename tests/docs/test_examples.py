"""The three worked examples, as a user's config would take them; and the notebook."""

from __future__ import annotations

import copy
import os
import sys
import time
from pathlib import Path

import pytest
import torch
from ckd_mmdet.registry import MODELS, TASK_UTILS
from ckd_mmdet.samples import AlignedSamples, Candidates, Side

from tests.toys import saved_teacher, toy_batch, toy_config, toy_model

DOCS = Path(__file__).parents[2] / 'docs'
EXAMPLES = sorted((DOCS / 'examples').glob('*.py'))


@pytest.fixture(autouse=True, scope='module')
def imported():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS / 'examples')
        import my_aligner  # noqa: F401
        import my_loss  # noqa: F401
        import my_selector  # noqa: F401
        yield
    for registry, name in ((MODELS, 'LargestGapLoss'), (TASK_UTILS, 'ConfidentRows'), (TASK_UTILS, 'PooledAligner')):
        del registry.module_dict[name]  # other tests read which names there are
    for example in EXAMPLES:
        del sys.modules[example.stem]


def distiller(folder: Path, teacher: dict, seed: int, **alignment: object) -> torch.nn.Module:
    student = toy_config('faster_rcnn')
    model = toy_model(dict(type='ckd_mmdet.Distiller', student=student, alignments=dict(mine=alignment), teacher=dict(
        config=teacher, checkpoint=saved_teacher(folder, teacher, seed=seed), check_accuracy=False)))
    model.distillation.pair(model, None)
    return model.train()  # its BatchNorm computes as at rest, by `norm_eval`


def step(model: torch.nn.Module) -> dict:
    batch = model.data_preprocessor(toy_batch(num_items=[2, 2]), training=True)
    return model(**batch, mode='loss')


@pytest.mark.parametrize('example', EXAMPLES, ids=lambda path: path.stem)
def test_an_example_has_under_40_lines(example):
    assert len(EXAMPLES) == 3 and len(example.read_text().splitlines()) < 40


def test_the_loss_is_the_largest_gap_of_each_row():
    student, teacher = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    loss = MODELS.build(dict(type='ckd_mmdet.LargestGapLoss', loss_weight=2.0))
    rows = AlignedSamples(Side(student), Side(teacher), num_classes=3)
    gaps = [max(abs(a - b) for a, b in zip(one.softmax(0).tolist(), other.softmax(0).tolist(), strict=True))
            for one, other in zip(student, teacher, strict=True)]
    assert float(loss(rows)) == pytest.approx(2 * sum(gaps) / 5, rel=1e-6)


def test_the_selector_keeps_confident_rows_that_are_allowed():
    selector = TASK_UTILS.build(dict(type='ckd_mmdet.ConfidentRows', threshold=0.3))
    candidates = Candidates(torch.tensor([True, True, False]), 3, torch.tensor([0.3, 0.2, 0.9]))
    assert selector(candidates).tolist() == [True, False, False]


def test_loss_and_selector_train_a_detector(tmp_path):
    model = distiller(tmp_path, toy_config('faster_rcnn'), 1, aligner=dict(type='RoIAligner'),
                      selector=dict(type='ConfidentRows', threshold=0.0),
                      losses=dict(loss_gap=dict(type='LargestGapLoss')))
    losses = step(model)
    assert float(losses['mine.rows']) > 0
    losses['mine.loss_gap'].backward()
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.backbone.parameters())


@pytest.mark.parametrize(('teacher', 'seed', 'is_zero'), [('faster_rcnn', 0, True), ('retinanet', 1, False)])
def test_the_aligner_pairs_equal_maps_of_a_copy_and_others_of_another(teacher, seed, is_zero, tmp_path):
    model = distiller(tmp_path, toy_config(teacher), seed, aligner=dict(type='PooledAligner'),
                      losses=dict(loss_l2=dict(type='L2Loss')))
    if is_zero:
        model.load_state_dict(copy.deepcopy(model.distillation.teachers[None].model.state_dict()))
    assert (float(step(model)['mine.loss_l2']) == 0) is is_zero


def test_the_notebook_runs(tmp_path):
    nbclient, nbformat = pytest.importorskip('nbclient'), pytest.importorskip('nbformat')
    notebook = nbformat.read(DOCS / 'first_steps.ipynb', as_version=4)
    assert not any(cell.get('outputs') for cell in notebook.cells), 'clear the outputs before you commit it'
    env, started = {**os.environ, 'TMPDIR': str(tmp_path)}, time.monotonic()
    manager = nbclient.NotebookClient(notebook, timeout=120, kernel_name='python3',
                                      resources=dict(metadata=dict(path=str(DOCS))))
    manager.execute(env=env)
    assert time.monotonic() - started < 45
    printed = ''.join(output.get('text', '') for cell in notebook.cells for output in cell.get('outputs', []))
    assert 'train/roi.loss_ckd' in printed and 'FasterRCNN of mmdet.' in printed
