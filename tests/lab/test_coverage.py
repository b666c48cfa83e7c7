"""The table of supported detectors: a dozen of its families, and the program that makes it."""

import contextlib
import copy
import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ckd_mmdet.aligners.dense_boxes import DenseBoxes
from ckd_mmdet.choice import choose_alignment
from ckd_mmdet.lab.coverage import (
    OUT_OF_SCOPE,
    Row,
    check_family,
    families,
    made_up_batch,
    markdown,
    model_of,
    run_families,
    shrunk,
    smallest_config,
    summary,
    toy_model,
)
from ckd_mmdet.lab.coverage.checks import attach, first_line
from ckd_mmdet.lab.coverage.probes import Failed, boxes, flat, forward, gradient, identity, listened, silence
from ckd_mmdet.lab.coverage.shrink import NARROWER
from ckd_mmdet.rows import SIGMOID, MapRows
from mmdet.utils import register_all_modules

from tests.small_runs import run_tool

register_all_modules(init_default_scope=True)

DOZEN = {  # families, and who serves them
    'retinanet': 'DenseAligner',
    'fcos': 'DenseAligner',
    'gfl': 'DenseAligner',
    'tood': 'DenseAligner',
    'rtmdet': 'DenseAligner',
    'yolox': 'DenseAligner',
    'faster_rcnn': 'RoIAligner',
    'mask_rcnn': 'RoIAligner',
    'double_heads': 'RoIAligner',
    'cascade_rcnn': 'RoIAligner',
    'detr': 'QueryAligner',
    'dino': 'QueryAligner',
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def parts(config: Any) -> Iterator[dict]:
    """The dicts within a config."""
    if isinstance(config, dict):
        yield config
    for part in config.values() if isinstance(config, dict) else config if isinstance(config, list | tuple) else ():
        yield from parts(part)


@pytest.mark.parametrize('family', DOZEN)
def test_a_family_passes_every_check(family: str) -> None:
    row = check_family(family)
    assert row.passes, row
    assert row.aligner == DOZEN[family]
    assert row.identity == 'equal' and row.boxes == ('no' if family == 'tood' else 'equal')
    assert row.crossed == ('-' if row.aligner != 'DenseAligner' else 'no' if family == 'tood' else 'yes')


@pytest.mark.parametrize('family', ['gn+ws', 'ld'])
def test_a_family_attaches_whatever_its_name_and_with_a_teacher_of_its_own(family: str) -> None:
    assert attach(smallest_config(family)) == 'yes'


# families

def test_every_folder_of_mmdets_configs_is_a_family_but_those_without_detectors() -> None:
    of_onedl = {'clrnet'}  # which the official mmdet does not have
    assert set(OUT_OF_SCOPE) - of_onedl < set(families()) and len({*families(), *of_onedl}) == 114
    assert not {'_base_', 'common'} & set(families())


def test_a_familys_config_exists_and_is_of_coco_where_it_has_such() -> None:
    assert smallest_config('retinanet') == 'retinanet/retinanet_r50_fpn_1x_coco.py'
    assert smallest_config('gfl') == 'gfl/gfl_r50_fpn_1x_coco.py'
    assert smallest_config('pascal_voc') == 'pascal_voc/retinanet_r50_fpn_1x_voc0712.py'
    assert smallest_config('rtmdet') == 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py'


def test_an_unknown_family_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match="folder of mmdet's configs, got 'retina'; known: .*retinanet"):
        smallest_config('retina')


# shrinking

@pytest.mark.parametrize('family', ['faster_rcnn', 'dino', 'ld'])
def test_a_shrunk_model_downloads_nothing(family: str) -> None:
    config = model_of(smallest_config(family))
    assert any('init_cfg' in part for part in parts(config))
    assert not any({'init_cfg', 'pretrained'} & set(part) for part in parts(shrunk(config)))


def test_shrinking_keeps_classes_and_leaves_its_argument_alone() -> None:
    config = model_of('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    before = config.to_dict()
    small = shrunk(config)
    assert config.to_dict() == before
    types = [[part['type'] for part in parts(side) if 'type' in part] for side in (config, small)]
    assert types[0] and set(types[0]) - {'Pretrained'} == set(types[1])
    assert small.neck.in_channels == [width // NARROWER for width in config.neck.in_channels]
    assert small.roi_head.bbox_head.num_classes == 3


def test_a_backbone_without_a_narrower_version_keeps_the_neck_on_it() -> None:
    small = shrunk(model_of('regnet/faster-rcnn_regnetx-400MF_fpn_ms-3x_coco.py'))
    assert small.neck.in_channels == [32, 64, 160, 384] and small.neck.out_channels == 32


def test_a_made_up_batch_is_always_the_same() -> None:
    model = toy_model(shrunk(model_of('panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py')))
    one, other = (made_up_batch(model)['data_samples'] for _ in range(2))
    for ours, theirs in zip(one, other, strict=True):
        assert torch.equal(ours.gt_instances.bboxes, theirs.gt_instances.bboxes)
        assert torch.equal(ours.gt_sem_seg.sem_seg, theirs.gt_sem_seg.sem_seg)
        assert (ours.gt_instances.masks.masks == theirs.gt_instances.masks.masks).all()
        assert set(ours.gt_instances.labels.tolist()) <= {0, 1, 2}


# the checks can fail

def test_other_weights_fail_the_check_of_identity() -> None:
    config = shrunk(model_of(smallest_config('retinanet')))
    student, teacher = toy_model(config), toy_model(config, seed=1).eval()
    with pytest.raises(Failed, match='rows of student and teacher, numbers differ by up to'):
        identity(student, teacher, choose_alignment(student, teacher))


def test_boxes_that_differ_or_are_not_those_that_the_head_predicts_fail_the_check(
        monkeypatch: pytest.MonkeyPatch) -> None:
    config = shrunk(model_of(smallest_config('retinanet')))
    student, other = toy_model(config), toy_model(config, seed=1).eval()
    with pytest.raises(Failed, match='boxes of student and teacher differ by up to'):
        boxes(student, other, choose_alignment(student, other))
    teacher, take = copy.deepcopy(student).eval(), DenseBoxes.take
    monkeypatch.setattr(DenseBoxes, 'take', lambda self, *rows: take(self, *rows) + 1)
    with pytest.raises(Failed, match='its RetinaHead predicts boxes that are up to 1 pixels off'):
        boxes(student, teacher, choose_alignment(student, teacher))


def test_a_changed_loss_fails_the_check_of_silence() -> None:
    losses = flat(forward(toy_model(shrunk(model_of(smallest_config('retinanet'))))))
    silence(losses, dict(losses))
    with pytest.raises(Failed, match='listening changes loss_cls$'):
        silence(losses, {**losses, 'loss_cls': [value + 1e-6 for value in losses['loss_cls']]})


def test_rows_that_lost_their_graph_fail_the_check_of_gradient() -> None:
    student = toy_model(shrunk(model_of(smallest_config('retinanet'))))
    teacher = copy.deepcopy(student).eval()
    _, answers = listened(student, teacher, choose_alignment(student, teacher))
    gradient(student, teacher, answers)
    cut = [MapRows([level * 0 for level in answer.student.maps], SIGMOID)  # a graph, but no gradient
           for answer in answers]
    with pytest.raises(Failed, match='give its backbone no gradient'):
        gradient(student, teacher, [replace(answer, student=rows) for answer, rows in zip(answers, cut, strict=True)])
    swapped = [replace(answer, teacher=answer.student) for answer in answers]
    with pytest.raises(Failed, match="the teacher's rows carry gradient"):
        gradient(student, teacher, swapped)


# one process a family

def _pretend(family: str) -> Row:
    if family == 'atss':
        os._exit(3)
    if family == 'gfl':
        time.sleep(60)
    return Row(family, plain='yes', aligner='DenseAligner')


def test_a_process_that_dies_or_hangs_is_a_row_with_its_reason() -> None:
    seen = []
    rows = run_families(['atss', 'gfl', 'fcos'], jobs=3, limit=2, progress=seen.append, check=_pretend)
    assert [row.family for row in rows] == ['atss', 'gfl', 'fcos'] and len(seen) == 3
    assert [row.reason for row in rows] == ['its process ended with exit code 3', 'took more than 2 s', '']
    assert rows[2].aligner == 'DenseAligner' and rows[1].seconds >= 2


def test_a_number_of_processes_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match='`jobs` needs a positive number of processes, got 0'):
        run_families(['fcos'], jobs=0)


def test_what_is_out_of_scope_says_why() -> None:
    row = check_family('glip')
    assert not row.passes and row.reason == 'scores the words of a text, not classes'


def test_a_reason_is_one_line_without_this_machines_folders() -> None:
    error = ValueError("needs 'a/b' of '/tmp/x1/teacher.pth', got\nmore")
    assert first_line(error) == "ValueError: needs 'a/b' of 'teacher.pth', got"


# the page

GOOD = Row('fcos', 'fcos/fcos_r50.py', 'FCOS', 'FCOSHead', 'DenseAligner', 'yes', 'equal', *['yes'] * 6, boxes='equal',
           crossed='yes')
POOR = Row('paa', 'paa/paa_r50.py', 'PAA', 'PAAHead', 'DenseAligner', 'yes', labels='no', no_labels='it reorders',
           reason='identity: a|b')
OUT = Row('glip', 'glip/glip.py', reason='words')


def test_the_page_has_a_row_a_family_and_a_reason_for_each_that_fails() -> None:
    page = markdown([GOOD, POOR, OUT], seconds=90, jobs=2)
    assert f'| fcos | fcos_r50 | FCOS | FCOSHead | DenseAligner | equal |{" yes |" * 6} equal | yes |' in page
    assert '| paa | paa_r50 | PAA | PAAHead | DenseAligner | - | - | - | - | - | - | no | - | - |' in page
    assert '## Those that fail\n\n- **paa**: identity: a\\|b' in page
    assert '## Without labels\n\n- **paa**: it reorders' in page and '## Out of scope\n\n- **glip**: words' in page
    assert '1.5 minutes (0.0 of CPU time) in 2 processes' in page and re.search(r'torch \d', page)


def test_the_summary_counts_families_and_pairs_of_classes() -> None:
    twin = Row(**{**vars(GOOD), 'family': 'v3det'})
    assert summary([GOOD, twin, POOR, OUT]) == ('2 of 4 families pass every check (DenseAligner 2), with 1 different '
                                                'pairs of detector and head class; out of scope: 1.')


@pytest.mark.parametrize('check', ['plain', 'identity', 'confidence', 'boxes', 'gradient', 'silence', 'step', 'attach'])
def test_a_row_passes_only_with_every_check(check: str) -> None:
    assert GOOD.passes and not Row(**{**vars(GOOD), check: ''}).passes


@pytest.mark.parametrize('limit', [0, -1, float('nan'), float('inf')])
def test_a_limit_that_no_family_can_keep_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match='`limit` needs a finite number of seconds greater than 0'):
        run_families(['fcos'], limit=limit)


@pytest.mark.parametrize(('rows', 'options', 'written'), [
    ([POOR], [], False), ([GOOD], [], True), ([GOOD], ['--families', 'fcos'], False)])
def test_only_a_whole_run_in_which_something_passes_replaces_the_table(
        rows: list, options: list, written: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'docs').mkdir()
    (tmp_path / 'docs/supported.md').write_text('committed')
    monkeypatch.setattr('ckd_mmdet.lab.coverage.run_families', lambda *unused: rows)
    with contextlib.suppress(SystemExit):
        run_tool(monkeypatch, 'coverage', *options)
    assert ((tmp_path / 'docs/supported.md').read_text() != 'committed') == written
