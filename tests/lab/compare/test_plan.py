"""What a matrix is made of, and the folder that remembers it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ckd_mmdet.lab.compare import plan
from ckd_mmdet.lab.compare.methods import Method
from ckd_mmdet.lab.compare.plan import FILE, Settings, keep_matrix, make_matrix

from tests.lab.compare.matrices import a_config, a_matrix
from tests.lab.compare.test_methods import DIGITS, in_the_repository  # noqa: F401  a fixture for all tests here


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


# identity

def test_methods_and_seeds_may_join_later(tmp_path: Path) -> None:
    keep_matrix(a_matrix(tmp_path, ['none', 'kd'], [0, 1]))
    keep_matrix(a_matrix(tmp_path, ['none', 'ckd'], [3]))
    found = json.loads((tmp_path / FILE).read_text())
    assert list(found['methods']) == ['none', 'kd', 'ckd'] and found['seeds'] == [0, 1, 3]
    assert {path.name for path in (tmp_path / 'configs').iterdir()} == {'none.py', 'kd.py', 'ckd.py', 'the_teacher.py'}


@pytest.mark.parametrize(('changes', 'text'), [
    (dict(student=dict(config='other.py', digest='x')), '`student` was student.py, now it is other.py'),
    (dict(student=dict(config='student.py', digest='x')), '`student` is student.py as before, but its content has'),
    (dict(teacher=dict(config='other.py', digest='x')), '`teacher` was teacher.py, now it is other.py'),
    (dict(teacher_checkpoint=dict(path='teacher.pth', digest='x')), '`teacher_checkpoint` is teacher.pth as before'),
    (dict(epochs=5), '`epochs` was 3, now it is 5'),
    (dict(options={'a.b': 1}), "`options` was {}, now it is {'a.b': 1}")])
def test_a_folder_of_another_matrix_is_refused_by_what_differs_and_left_alone(changes: dict, text: str, tmp_path: Path
                                                                              ) -> None:
    matrix = a_matrix(tmp_path)
    keep_matrix(matrix)
    before = contents(tmp_path)
    with pytest.raises(ValueError) as refused:
        keep_matrix(replace(matrix, identity={**matrix.identity, **changes}))
    assert text in str(refused.value) and 'take another `--out`' in str(refused.value)
    assert contents(tmp_path) == before


def test_a_moved_checkpoint_is_the_same_matrix(tmp_path: Path) -> None:
    matrix = a_matrix(tmp_path)
    keep_matrix(matrix)
    moved = dict(path='elsewhere/teacher.pth', digest=matrix.identity['teacher_checkpoint']['digest'])
    keep_matrix(replace(matrix, identity={**matrix.identity, 'teacher_checkpoint': moved}))


def test_a_method_whose_config_has_changed_is_refused(tmp_path: Path) -> None:
    keep_matrix(a_matrix(tmp_path, ['none', 'kd']))
    with pytest.raises(ValueError, match='the method kd has another config than before'):
        keep_matrix(a_matrix(tmp_path, ['none', Method('kd', a_config('other'))]))
    with pytest.raises(ValueError, match=r'kd was trained before, now it is refused \(no labels\)'):
        keep_matrix(a_matrix(tmp_path, ['none', Method('kd', refused='no labels')]))


def test_a_refused_method_may_be_possible_later(tmp_path: Path) -> None:
    keep_matrix(a_matrix(tmp_path, ['none', Method('kd', refused='no labels')]))
    keep_matrix(a_matrix(tmp_path, ['none', 'kd']))
    assert json.loads((tmp_path / FILE).read_text())['methods']['kd']['refused'] is None


def test_a_folder_with_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / 'thesis.tex').write_text('years of work')
    with pytest.raises(ValueError, match='holds something else'):
        keep_matrix(a_matrix(tmp_path))
    with pytest.raises(ValueError, match='holds something else'):
        keep_matrix(a_matrix(tmp_path / 'thesis.tex'))
    assert contents(tmp_path) == {str(tmp_path / 'thesis.tex'): b'years of work'}


@pytest.mark.parametrize('killed', ['write_whole', '_dump'])
def test_a_command_that_is_killed_while_it_writes_the_plan_goes_on_next_time(
        killed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*args: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / '.lock').touch()
    (tmp_path / f'.{FILE}.part').write_text('{"student')
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(plan, killed, kill)
        keep_matrix(a_matrix(tmp_path))
    keep_matrix(a_matrix(tmp_path))
    assert {path.name for path in (tmp_path / 'configs').iterdir()} == {'none.py', 'kd.py', 'the_teacher.py'}


def test_looking_writes_nothing(tmp_path: Path) -> None:
    keep_matrix(a_matrix(tmp_path / 'new'), write=False)
    assert not (tmp_path / 'new').exists()


# arguments

@pytest.mark.parametrize(('changes', 'text'), [
    (dict(seeds=[]), '`seeds` needs'), (dict(seeds=[0, -1]), '`seeds` needs'),
    (dict(epochs=0), '`epochs` needs a positive number, got 0'),
    (dict(jobs=0), '`jobs` needs a positive number, got 0'),
    (dict(options={'randomness.seed': 3}), 'take `--seeds`')])
def test_senseless_settings_are_refused(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=text):
        Settings(**{**DIGITS, 'methods': ['kd'], 'seeds': [0], 'out': tmp_path, **changes})


@pytest.mark.parametrize(('changes', 'text'), [
    (dict(titles={'dkd': 'DKD'}), "`--titles` needs METHOD=TITLE for a method of this command, got 'dkd'"),
    (dict(methods=['kd', 'dark']), "'dark' is unknown; take of none, ckd"),
    (dict(checkpoint='gone.pth'), "`--teacher-checkpoint` needs a file that exists, 'gone.pth' does not"),
    (dict(teacher='gone.py'), '`teacher.config` needs a readable config'),
    (dict(student='bad.py'), r'bad\.py needs to be Python that runs: SyntaxError .*never closed'),
    (dict(teacher='bad.py'), r'`teacher.config` needs a readable config, .*to be Python that runs: .*never closed'),
    (dict(options={'model.student.backbone.depht': 18}), "r18w16.*: its config is broken: TypeError: .*'depht'"),
    (dict(options={'train_dataloader.dataset.data_root': 'gone/'}), '`train_dataloader.dataset.data_root` needs')])
def test_bad_input_is_refused_before_anything_is_written(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    (tmp_path / 'weights.pth').write_text('weights')
    (tmp_path / 'bad.py').write_text('model = dict(')
    changes = {key: str(tmp_path / value) if value == 'bad.py' else value for key, value in changes.items()}
    settings = Settings(**{**DIGITS, 'methods': ['kd'], 'seeds': [0], 'out': tmp_path / 'out',
                           'checkpoint': str(tmp_path / 'weights.pth'), **changes})
    with pytest.raises(ValueError, match=text):
        make_matrix(settings)
    assert not (tmp_path / 'out').exists()
