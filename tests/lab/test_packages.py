"""Without the extra ``lab`` the core works whole, and the lab's commands name it."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from ckd_mmdet import lab

from tests.small_runs import ROOT, distilled, run_config, student_config

# mmdet itself imports the extra's other packages; that the core does not is tests/test_layers.py's
WITHOUT = """
import runpy, sys
sys.modules.update(pandas=None, sklearn=None)

def tool(name, *arguments):
    sys.argv = [name, *arguments]
    runpy.run_path(f'{root}/tools/{name}.py', run_name='__main__')

root, config, run = sys.argv[1:]
tool('train', config, '--work-dir', run)
tool('export', f'{run}/epoch_1.pth', f'{run}/plain.pth')
tool('test', config, f'{run}/plain.pth', '--work-dir', f'{run}/test')
# the registry names one of its data sets and a hook, and looks there when it is asked for any
loaded = {name for name in sys.modules if name.startswith('ckd_mmdet.lab.')}
assert loaded <= {'ckd_mmdet.lab.datasets', 'ckd_mmdet.lab.datasets.digits', 'ckd_mmdet.lab.watch'}, loaded
"""


def test_the_core_trains_exports_and_tests_without_the_extra(digits: Path, digit_teacher: dict, tmp_path: Path) -> None:
    cfg = run_config(distilled(student_config(), digit_teacher), digits, tmp_path / 'unused', epochs=1)
    cfg.dump(tmp_path / 'distilled.py')
    done = subprocess.run([sys.executable, '-c', WITHOUT, ROOT, tmp_path / 'distilled.py', tmp_path / 'run'], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'run/plain.pth').exists() and list((tmp_path / 'run/test').glob('*/*.json'))


@pytest.mark.parametrize('tool', ['analyze', 'benchmark', 'compare', 'demo', 'demo_classification',
                                  'make_digit_scenes', 'report'])
def test_a_command_of_the_lab_names_the_extra_in_one_sentence(tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ('pandas', 'tqdm'):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / 'tools' / f'{tool}.py'), run_name='__main__')
    assert left.value.code == ('\nthis needs pandas, tqdm of the extra `lab`; install it with `pip install '
                               'ckd_mmdet[lab]`, or `pip install .[lab]` in the repository.')


def test_without_imagehash_the_sentence_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'imagehash', None)
    with pytest.raises(ImportError, match=r'^this needs imagehash of the extra `lab`; .*`pip install ckd_mmdet\[lab\]'):
        lab.require_packages()


def test_the_extra_names_every_package_that_the_lab_asks_for() -> None:
    written = (ROOT / 'pyproject.toml').read_text().split('lab = [')[1].split(']')[0]
    assert {name.strip(' "').split('>')[0] for name in written.split(',')} == set(lab.PACKAGES)
