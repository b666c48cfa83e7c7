"""What TensorBoard and its like are given, and the pictures of the same validation images."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from ckd_mmdet.lab.watch import DrawTeacherAndStudent
from ckd_mmdet.log_groups import grouped
from mmengine.registry import VISBACKENDS
from mmengine.visualization import LocalVisBackend
from mmengine.visualization.vis_backend import BaseVisBackend

from tests.small_runs import ROOT, distilled, run_config, student_config, train

TENSORBOARD = importlib.util.find_spec('tensorboard') is not None


@VISBACKENDS.register_module(name='RecordedBackend')
class Recorded(BaseVisBackend):
    """As TensorBoard's: it has what it was given."""

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir)
        self.keys: set[str] = set()
        Recorded.last = self

    def _init_env(self) -> None:
        pass

    @property
    def experiment(self) -> object:
        return self

    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: object) -> None:
        self.keys |= set(scalar_dict)


@pytest.fixture(scope='module')
def run(digits: Path, digit_teacher: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp('watched')
    cfg = run_config(distilled(student_config(), digit_teacher), digits, work_dir, epochs=2)
    cfg.train_dataloader.dataset.indices = 4
    cfg.visualizer = dict(type='DetLocalVisualizer', name='watched',
                          vis_backends=[dict(type='LocalVisBackend'), dict(type='RecordedBackend'),
                                        *([dict(type='TensorboardVisBackend')] if TENSORBOARD else [])])
    cfg.custom_hooks = [dict(type='ckd_mmdet.DrawTeacherAndStudent', images=2, threshold=0.0)]
    train(cfg)
    return work_dir


def test_a_backend_has_one_group_an_alignment(run):
    keys = Recorded.last.keys
    assert {'distill/roi/loss_ckd', 'distill/roi/rows', 'loss', 'coco/bbox_mAP'} <= keys
    assert not any('.' in key for key in keys)


@pytest.mark.skipif(not TENSORBOARD, reason='tensorboard is not installed')
def test_tensorboard_shows_the_group_its_steps_and_the_photographs(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    file, = run.rglob('events.out.tfevents.*')
    events = EventAccumulator(str(file)).Reload()
    scalars, pictures = events.Tags()['scalars'], events.Tags()['images']
    assert {'distill/roi/loss_ckd', 'distill/roi/cosine', 'coco/bbox_mAP'} <= set(scalars)
    assert [event.step for event in events.Scalars('coco/bbox_mAP')] == [1, 2]
    assert [event.step for event in events.Images('photo0_student')] == [1, 2] and 'photo1_teacher' in pictures


def test_the_json_log_keeps_the_names_with_a_dot(run):
    written, = run.glob('*/vis_data/scalars.json')
    assert '"roi.loss_ckd"' in written.read_text() and 'distill/' not in written.read_text()


def test_each_key_of_ours_is_explained(run):
    explained = (ROOT / 'docs/log-keys.md').read_text()
    ours = {key.removeprefix('distill/roi/') for key in Recorded.last.keys if key.startswith('distill/')}
    assert len(ours) >= 5
    for key in ours:
        assert f'`<alignment>.{key.replace("ckd", "<name>")}`' in explained, key


def test_truth_and_teacher_are_drawn_once_and_the_student_after_each_epoch(run):
    pictures = {path.name for path in run.glob('*/vis_data/vis_image/*.png')}
    assert pictures == {f'photo{i}_{name}.png' for i in range(2)
                        for name in ('truth_0', 'teacher_0', 'student_1', 'student_2')}


@pytest.mark.parametrize(('key', 'name'), [
    ('roi.loss_ckd', 'distill/roi/loss_ckd'), ('neck.loss_l2', 'neck.loss_l2'), ('loss_cls', 'loss_cls'),
    ('d0.loss_cls', 'd0.loss_cls'), ('coco/bbox_mAP', 'coco/bbox_mAP')])
def test_only_the_keys_of_an_alignment_are_grouped(key, name):
    assert grouped(key, frozenset({'roi'})) == name


@pytest.mark.parametrize(('argument', 'value'), [('images', 0), ('interval', 1.5), ('threshold', 2)])
def test_a_wrong_number_is_refused_by_its_name(argument, value):
    with pytest.raises(ValueError, match=f'`{argument}`.*got {value}'):
        DrawTeacherAndStudent(**{argument: value})


def test_a_visualizer_that_draws_no_boxes_is_refused():
    class Run:
        visualizer = LocalVisBackend

    with pytest.raises(ValueError, match='DetLocalVisualizer'):
        DrawTeacherAndStudent().before_run(Run())
