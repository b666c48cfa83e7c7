import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# An interpreter whose `-m venv` and `-m pip` only write down that they were called; {pip} is what pip does.
INTERPRETER = """#!/bin/sh
case "$*" in
  "-m venv --clear "*) rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
  "-m pip "*) echo "$@" >> pip.log; {pip} ;;
  -V) echo "Python {version}" ;;
  *) exec {real} -c "import sys; sys.version_info = ({version}); exec(sys.argv[2])" "$@" ;;
esac
"""


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    # make puts what its own command line set, `make test STACK=official`, into the environment of what it starts
    given = ('PYTHON', 'MAKEFLAGS', 'MAKELEVEL', 'MAKEOVERRIDES', 'STACK', 'WORKERS', 'VENV', 'REQUIREMENTS', 'PYTEST',
             'DATA')
    environment = {key: value for key, value in os.environ.items() if key not in given}
    return subprocess.run(['make', *arguments], cwd=folder, capture_output=True, text=True, env=environment)


def interpreter(folder: Path, name: str = 'python-fake', version: str = '3, 11, 7', pip: str = 'true') -> str:
    path = folder / name
    path.write_text(INTERPRETER.format(pip=pip, real=sys.executable, version=version))
    path.chmod(0o755)
    return f'PYTHON={path}'


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / 'copy'
    folder.mkdir()
    for path in (ROOT / 'Makefile', ROOT / 'pyproject.toml', *ROOT.glob('requirements*.txt')):
        shutil.copy(path, folder)
    return folder


def pip_calls(folder: Path) -> int:
    log = folder / 'pip.log'
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.mark.parametrize('version', ['3, 9, 18', '3, 13, 0', '2, 7, 18'])
def test_an_unsupported_python_is_refused_by_its_version_with_the_way_out(version: str, copy: Path) -> None:
    done = make(copy, 'demo', interpreter(copy, version=version))
    assert done.returncode
    assert f'is Python {version.replace(", ", ".")}' in done.stderr
    assert 'PYTHON=python3.12 make demo' in done.stderr
    assert not (copy / '.venv').exists()


def test_a_missing_interpreter_is_named(copy: Path) -> None:
    assert 'no-such-python is not found' in make(copy, 'install', 'PYTHON=no-such-python').stderr


def test_a_finished_setup_is_not_repeated(copy: Path) -> None:
    first = make(copy, 'install', interpreter(copy))
    assert 'a new .venv with Python 3, 11, 7' in first.stdout and pip_calls(copy) == 2
    for again in (make(copy, 'install'), make(copy, 'install', interpreter(copy))):
        assert again.stdout == 'Ready: .venv/bin/python\n'
    assert pip_calls(copy) == 2


@pytest.mark.parametrize('name', ['requirements.txt', 'pyproject.toml'])
def test_changed_requirements_refresh_the_venv(name: str, copy: Path) -> None:
    make(copy, 'install', interpreter(copy))
    for path, seconds in {'requirements.txt': 1, 'pyproject.toml': 1, '.venv/.ready': 2, name: 3}.items():
        os.utime(copy / path, (seconds, seconds))
    assert 'refreshing .venv' in make(copy, 'install').stdout
    assert pip_calls(copy) == 4
    assert make(copy, 'install').stdout == 'Ready: .venv/bin/python\n'


def test_a_moved_folder_is_set_up_anew(copy: Path) -> None:
    make(copy, 'install', interpreter(copy))
    moved = copy.rename(copy.with_name('moved'))
    assert 'refreshing .venv' in make(moved, 'install').stdout
    assert make(moved, 'install').stdout == 'Ready: .venv/bin/python\n'


def test_another_interpreter_makes_another_venv(copy: Path) -> None:
    make(copy, 'install', interpreter(copy))
    other = interpreter(copy, 'python-other', version='3, 12, 1')
    assert 'a new .venv with Python 3, 12, 1' in make(copy, 'install', other).stdout
    assert make(copy, 'install').stdout == 'Ready: .venv/bin/python\n'  # and stays, whatever python3 is


@pytest.mark.parametrize('stack', ['official', 'oldest'])
def test_a_stack_has_its_packages_and_its_venv(stack: str, copy: Path) -> None:
    make(copy, 'install', interpreter(copy))
    said = make(copy, 'install', f'STACK={stack}', interpreter(copy)).stdout
    assert f'a new .venv-{stack} with' in said and f'Ready: .venv-{stack}/bin/python' in said
    assert f'--requirement requirements-{stack}.txt' in (copy / 'pip.log').read_text()
    for words in ((), (f'STACK={stack}',)):  # neither set-up undoes the other's
        assert 'set-up' not in make(copy, 'install', *words).stdout


def test_lint_and_types_are_checked_beside_the_default_stack_alone(copy: Path) -> None:
    for stack, programs in {'onedl': {'ruff', 'mypy', 'pytest'}, 'official': {'pytest'}}.items():
        make(copy, 'install', f'STACK={stack}', interpreter(copy))
        said = make(copy, '--just-print', 'test', f'STACK={stack}').stdout
        assert set(re.findall(r'-m (\w+)', said)) == programs


def test_the_folder_of_real_weights_reaches_the_tests(copy: Path) -> None:
    make(copy, 'install', interpreter(copy))
    assert "DATA='some/folder'" in make(copy, '--just-print', 'test', 'DATA=some/folder').stdout
    assert "DATA=''" in make(copy, '--just-print', 'test').stdout


def test_an_unknown_stack_is_refused_with_the_known_ones(copy: Path) -> None:
    done = make(copy, 'test', 'STACK=ondel')
    assert done.returncode and "STACK needs onedl, official or oldest, and is 'ondel'" in done.stderr


def wanted(*lines: str) -> dict[str, str]:
    """The versions that lines of requirements ask for, by the names of their packages."""
    found = (re.match(r'([\w-]+)\s*([^;#]*)', line) for line in lines)
    return {match[1]: match[2].strip() for match in found if match}


def stack_packages(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    return wanted(*[line for line in lines if not line.startswith(('#', '--'))])


def test_the_oldest_stack_is_that_of_the_lower_bounds() -> None:
    text = (ROOT / 'pyproject.toml').read_text()
    # those of the other line, and what no test needs
    pyproject = re.sub(r'(?m)^(onedl|classification|docs) = .*$', '', text)
    bounds = wanted(*re.findall(r'"([\w-]+>=[\d.]+)"', pyproject))
    oldest = stack_packages('requirements-oldest.txt')
    assert {'torch', 'torchvision', 'pandas', 'scipy', 'pytest'} < bounds.keys()
    for name, bound in bounds.items():
        lower = bound.removeprefix('>=')
        assert f'{oldest[name]}.'.startswith(f'=={lower}.'), name


def test_the_official_stack_differs_by_openmmlab_s_packages_alone() -> None:
    ours, official = stack_packages('requirements.txt'), stack_packages('requirements-official.txt')
    openmmlab = {'mmengine', 'mmcv-lite', 'mmdet', 'mmpretrain', 'setuptools'}
    oldest = stack_packages('requirements-oldest.txt')
    assert {name: official[name] for name in openmmlab} == {name: oldest[name] for name in openmmlab}
    assert official.keys() - openmmlab == {name for name in ours if not name.startswith('onedl-')} - {'ruff', 'mypy'}
    assert not any(version for name, version in official.items() if name not in openmmlab)  # constrained by the other


@pytest.mark.parametrize(('given', 'passed'), [((), ''), (('SEEDS=0 1 2',), '--seeds 0 1 2')])
def test_the_demo_of_classification_takes_seeds(given: tuple, passed: str, copy: Path) -> None:
    make(copy, 'install', interpreter(copy))
    said = make(copy, '--just-print', 'demo-classification', *given).stdout
    assert said.split() == ['.venv/bin/python', 'tools/demo_classification.py', *passed.split()]


def test_the_documentation_has_packages_of_its_own_and_its_warnings_are_errors(copy: Path) -> None:
    make(copy, 'install', interpreter(copy))
    said = make(copy, '--just-print', 'docs').stdout
    assert said.index('requirements-docs.txt') < said.index('-m sphinx') < said.index('docs/check_links.py')
    assert '--fail-on-warning' in said
    (copy / '.venv/.ready-docs').touch()
    assert 'requirements-docs.txt' not in make(copy, '--just-print', 'docs').stdout


@pytest.mark.parametrize(('given', 'passed'), [
    ((), ''), (('QUICK=1',), '--quick'), (('QUICK=0', 'FULL=1', 'SEEDS=0 1'), '--full --seeds 0 1')])
def test_the_demo_takes_its_size_and_seeds(given: tuple, passed: str, copy: Path) -> None:
    make(copy, 'install', interpreter(copy))
    said = make(copy, '--just-print', 'demo', *given).stdout.replace('\\\n', '')
    assert said.split() == ['.venv/bin/python', 'tools/demo.py', *passed.split()]


@pytest.mark.parametrize('pip', ['exit 1', 'kill -9 $PPID'])
def test_a_failed_or_killed_setup_does_not_look_finished(pip: str, copy: Path) -> None:
    for _ in range(2):  # the second begins anew
        done = make(copy, 'install', interpreter(copy, pip=pip))
        assert done.returncode and 'a new .venv' in done.stdout
        assert not (copy / '.venv/.ready').exists()


def test_a_failed_refresh_keeps_the_venv_and_is_tried_again(copy: Path) -> None:
    make(copy, 'install', interpreter(copy))
    os.utime(copy / '.venv/.ready', (0, 0))
    shutil.copy(copy / '.venv/bin/python', copy / 'python-good')
    interpreter(copy / '.venv/bin', 'python', pip='exit 1')  # no network, say
    for _ in range(2):
        done = make(copy, 'install')
        assert done.returncode and 'refreshing .venv' in done.stdout
    shutil.copy(copy / 'python-good', copy / '.venv/bin/python')
    assert make(copy, 'install').returncode == 0


def test_a_killed_refresh_makes_a_new_venv(copy: Path) -> None:
    python = interpreter(copy)
    make(copy, 'install', python)
    os.utime(copy / '.venv/.ready', (0, 0))
    interpreter(copy / '.venv/bin', 'python', pip='kill -9 $PPID')
    assert make(copy, 'install').returncode
    assert 'a new .venv' in make(copy, 'install', python).stdout
