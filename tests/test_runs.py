"""Whole runs: what comes out of them, and that a resumed one continues as if never stopped."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from ckd_mmdet.classes import SharedClasses
from ckd_mmdet.config import add_hook
from ckd_mmdet.lab.datasets.digit_sources import CLASSES
from mmdet.apis import init_detector
from mmdet.models import FasterRCNN
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner, load_checkpoint

from tests.small_runs import distilled, run_config, student_config, train
from tests.toys import saved_teacher, toy_config, toy_model

EPOCHS, STEPS = 3, 4


@pytest.fixture(scope='module', params=['plain', 'workers and EMA'])
def run(request: pytest.FixtureRequest, digits: Path, digit_teacher: dict, tmp_path_factory: pytest.TempPathFactory
        ) -> tuple[Config, list[dict[str, float]]]:
    """An uninterrupted run and what its steps logged."""
    more = dict(workers=2, ema=True) if request.param != 'plain' else {}
    cfg = run_config(distilled(student_config(), digit_teacher), digits, tmp_path_factory.mktemp('run'),
                     epochs=EPOCHS, **more)
    return cfg, train(cfg)


def resumed(cfg: Config, checkpoint: Path, work_dir: Path, **changes: object) -> Config:
    again = cfg.copy()
    again.merge_from_dict(dict(work_dir=str(work_dir), load_from=str(checkpoint), resume=True,
                               experiment_name=work_dir.name, **changes))
    return again


@pytest.mark.parametrize('epoch', [1, 2])
def test_a_resumed_run_continues_as_if_never_stopped(run: tuple, epoch: int, tmp_path: Path) -> None:
    cfg, whole = run
    checkpoint = Path(cfg.work_dir) / f'epoch_{epoch}.pth'
    rest = train(resumed(cfg, checkpoint, tmp_path))
    assert len(whole) == EPOCHS * STEPS and len(rest) == (EPOCHS - epoch) * STEPS
    keys = {key for key in whole[0] if 'loss' in key}
    assert {'loss', 'loss_cls', 'loss_rpn_cls', 'roi.loss_ckd'} <= keys
    assert rest == whole[epoch * STEPS:]
    ours, theirs = (torch.load(folder / f'epoch_{EPOCHS}.pth', weights_only=False)
                    for folder in (tmp_path, Path(cfg.work_dir)))
    for part in ('state_dict', 'ema_state_dict'):
        for key, value in theirs.get(part, {}).items():
            assert torch.equal(ours[part][key], value), key


def test_the_steps_of_different_epochs_differ(run: tuple) -> None:
    _, whole = run
    assert len({step['loss'] for step in whole}) == len(whole)


def checkpoints(cfg: Config) -> Iterator[Path]:
    yield from sorted(Path(cfg.work_dir).glob('*.pth'))


def test_every_checkpoint_is_an_ordinary_students(run: tuple) -> None:
    cfg, _ = run
    names = [path.name for path in checkpoints(cfg)]
    assert {'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth', 'student.pth'} < set(names)
    assert any(name.startswith('best_') for name in names)
    for path in checkpoints(cfg):
        loaded = torch.load(path, map_location='cpu', weights_only=False)
        plain = toy_model(student_config(), seed=7)
        plain.load_state_dict(loaded['state_dict'], strict=True)
        load_checkpoint(toy_model(student_config(), seed=8), str(path), strict=True)
        assert tuple(loaded['meta']['dataset_meta']['classes']) == CLASSES


def test_the_exported_student_is_the_last_checkpoints_and_nothing_else(run: tuple) -> None:
    cfg, _ = run
    student, last = (torch.load(Path(cfg.work_dir) / name, weights_only=False)
                     for name in ('student.pth', f'epoch_{EPOCHS}.pth'))
    assert set(student) == {'meta', 'state_dict'} and student['meta']['epoch'] == EPOCHS
    assert list(student['state_dict']) == list(last['state_dict'])
    assert all(torch.equal(value, last['state_dict'][key]) for key, value in student['state_dict'].items())


def test_a_checkpoint_holds_the_teachers_digest(run: tuple, digit_teacher: dict) -> None:
    cfg, _ = run
    teacher = toy_model(distilled(student_config(), digit_teacher)).distillation.teachers[None]
    known = torch.load(Path(cfg.work_dir) / 'epoch_1.pth', weights_only=False)['ckd_mmdet']
    assert known['teacher_digest'] == {None: teacher.digest()}


def test_a_run_is_resumed_with_a_faster_teacher_which_says_so(run: tuple, tmp_path: Path) -> None:
    cfg, _ = run
    again = resumed(cfg, Path(cfg.work_dir) / 'epoch_2.pth', tmp_path, log_level='INFO',
                    **{'model.teacher.precision': 'bf16', 'model.teacher.fuse': True})
    assert len(train(again)) == STEPS
    log, = tmp_path.glob('*/*.log')
    assert 'The teacher (the given config) computes in bfloat16, with BatchNorm folded.' in log.read_text()


def test_resuming_with_another_teacher_is_refused(run: tuple, tmp_path: Path) -> None:
    cfg, _ = run
    other = saved_teacher(tmp_path, student_config(), seed=2, classes=CLASSES)
    again = resumed(cfg, Path(cfg.work_dir) / 'epoch_1.pth', tmp_path, **{'model.teacher.checkpoint': other})
    with pytest.raises(ValueError, match=r'taught by other weights .*teacher_2.pth.*`load_from`'):
        train(again)
    again.merge_from_dict(dict(resume=False, experiment_name='started_anew', train_cfg=dict(max_epochs=1)))
    assert len(train(again)) == STEPS  # load_from starts a new run, where another teacher is welcome


def test_a_students_ordinary_checkpoint_serves_as_load_from(digits: Path, digit_teacher: dict, tmp_path: Path) -> None:
    alone = run_config(student_config(), digits, tmp_path / 'alone', epochs=1)
    train(alone)
    cfg = run_config(distilled(student_config(), digit_teacher), digits, tmp_path / 'distilled', epochs=1)
    cfg.load_from = str(tmp_path / 'alone' / 'epoch_1.pth')
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    expected = torch.load(cfg.load_from, weights_only=False)['state_dict']
    assert all(torch.equal(value, expected[key]) for key, value in runner.model.state_dict().items())
    shutil.rmtree(tmp_path / 'alone')


def test_an_alone_run_has_the_losses_of_a_distiller_without_alignments(digits: Path, tmp_path: Path) -> None:
    alone = train(run_config(student_config(), digits, tmp_path / 'alone', epochs=1))
    empty = dict(type='ckd_mmdet.Distiller', student=student_config(), alignments={})
    assert train(run_config(empty, digits, tmp_path / 'empty', epochs=1)) == alone
    assert (tmp_path / 'alone' / 'student.pth').is_file()


def test_a_teacher_at_chance_stops_the_run(digits: Path, digit_teacher: dict, tmp_path: Path) -> None:
    model = distilled(student_config(), digit_teacher)
    model['teacher']['check_accuracy'] = True
    with pytest.raises(RuntimeError, match=r'no better than chance.*swapped colour channels'):
        train(run_config(model, digits, tmp_path, epochs=20))


def test_a_run_whose_images_hold_nothing_trains_on(digits: Path, digit_teacher: dict, tmp_path: Path) -> None:
    cfg = run_config(distilled(student_config(), digit_teacher), digits, tmp_path, epochs=1)
    cfg.train_dataloader.dataset.pipeline.insert(-1, dict(type='FilterAnnotations', min_gt_bbox_wh=(999, 999),
                                                          keep_empty=False))
    steps = train(cfg)
    assert len(steps) == STEPS and all(step['roi.teacher_accuracy'] == 0 for step in steps)
    assert all(torch.tensor(list(step.values())).isfinite().all() for step in steps)


def test_a_student_of_three_classes_learns_from_a_teacher_of_ten(digits, digit_teacher, tmp_path):
    model = distilled(toy_config('faster_rcnn', 3), {**digit_teacher, 'class_map': 'name'})
    cfg = run_config(model, digits, tmp_path, epochs=1)
    cfg.train_dataloader.dataset.metainfo.classes = ('three', 'zero', 'seven')
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None  # its annotations know ten
    add_hook(cfg)
    runner, seen = Runner.from_cfg(cfg), []
    losses = runner.model.distillation.losses
    losses['roi.loss_ckd'].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    runner.train()
    # the file numbers them zero, three, seven, and mmdet's labels are by the file
    assert runner.model.distillation.pairings['roi'].classes == SharedClasses((0, 1, 2), (0, 3, 7))
    assert len(seen) == 4 and all(one.teacher.logits.shape == (len(one), 4) for one in seen)
    saved = torch.load(tmp_path / 'student.pth', weights_only=False)['meta']['dataset_meta']
    assert tuple(saved['classes']) == ('zero', 'three', 'seven')


class FailsInTheEnd(Hook):
    """A validation that breaks after the last epoch."""

    def before_val_epoch(self, runner):
        if runner.epoch == EPOCHS:
            raise OSError('the disk is gone')


def test_a_run_that_fails_in_its_last_validation_leaves_its_student(digits, digit_teacher, tmp_path):
    cfg = run_config(distilled(student_config(), digit_teacher), digits, tmp_path, epochs=EPOCHS)
    add_hook(cfg)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(FailsInTheEnd())
    with pytest.raises(OSError, match='the disk is gone'):
        runner.train()
    saved = torch.load(tmp_path / 'student.pth', weights_only=False)
    assert saved['meta']['epoch'] == EPOCHS
    toy_model(student_config()).load_state_dict(saved['state_dict'], strict=True)


@pytest.mark.parametrize('elsewhere', [dict(out_dir='elsewhere'), dict(save_last=False, interval=9)])
def test_the_student_is_of_this_run_wherever_its_checkpoints_are(digits, digit_teacher, tmp_path, elsewhere):
    if 'out_dir' in elsewhere:
        elsewhere = dict(out_dir=str(tmp_path / 'elsewhere'))
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_9.pth'))  # of a run before
    torch.save(dict(meta={}, state_dict=toy_model(student_config(), seed=9).state_dict()), tmp_path / 'epoch_9.pth')
    cfg = run_config(distilled(student_config(), digit_teacher), digits, tmp_path, epochs=1)
    cfg.default_hooks.checkpoint.update(**elsewhere)
    add_hook(cfg)
    runner = Runner.from_cfg(cfg)
    runner.train()
    saved = torch.load(tmp_path / 'student.pth', weights_only=False)['state_dict']
    assert all(torch.equal(value, saved[key]) for key, value in runner.model.state_dict().items())


def test_the_exported_config_and_weights_are_enough_for_mmdet(run: tuple) -> None:
    cfg, _ = run
    student = init_detector(str(Path(cfg.work_dir) / 'student.py'), str(Path(cfg.work_dir) / 'student.pth'),
                            device='cpu')
    assert type(student) is FasterRCNN and tuple(student.dataset_meta['classes']) == CLASSES
