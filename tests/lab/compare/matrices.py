"""Matrices whose trainings are played by a small script: what surrounds them is the real thing."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ckd_mmdet.lab.compare import main, runs, testing
from ckd_mmdet.lab.compare.found import Found
from ckd_mmdet.lab.compare.methods import Method
from ckd_mmdet.lab.compare.plan import Matrix, Settings, keep_matrix
from ckd_mmdet.lab.compare.report import write_report
from mmengine.config import Config

# It trains an epoch in no time, as its plan says: method, seed and epoch decide the score. `fails`, `waits` and `blind`
# name runs; one that waits does so after its first epoch, until it is ended, and a blind one finds nothing.
PLAYED = '''
import json, os, pickle, re, sys, time, zipfile
from pathlib import Path

kind, config = sys.argv[1:3]
folder = Path(sys.argv[sys.argv.index('--work-dir') + 1])
plan = json.loads(Path(PLAN).read_text())
log = folder / f'{time.time_ns():020}' / 'vis_data/scalars.json'
log.parent.mkdir(parents=True)
if kind == 'test':
    checkpoint = Path(sys.argv[3])
    name = '/'.join(checkpoint.parts[-3:-1]) if checkpoint.name == 'student.pth' else 'teacher'
    with open(Path(PLAN).parent / 'tests.txt', 'a') as tests:
        tests.write(f'{name} {Path(config).stem}\\n')
    if name in plan.get('untestable', []):
        sys.exit('RuntimeError: no room')
    score = plan['tests'].get(Path(config).stem if name == 'teacher' else name, plan['teacher'])
    found = {} if score is None else {'coco/bbox_mAP': score, 'coco/bbox_mAP_50': 0.9}
    (log.parents[1] / 'metrics.json').write_text(json.dumps({**found, 'time': 1.0}))
    sys.exit()
method, seed = Path(config).stem, int(sys.argv[-1].removeprefix('randomness.seed='))
name = f'{method}/{seed}'
with open(folder / 'calls.txt', 'a') as calls:
    calls.write(' '.join(sys.argv[1:]) + '\\n')
first = 1
if '--resume' in sys.argv:
    first = int(re.search(r'epoch_(\\d+).pth', sys.argv[sys.argv.index('--resume') + 1]).group(1)) + 1
if name in plan.get('fails', []):
    sys.exit('Traceback ...\\nRuntimeError: the teacher is no better than chance')
for epoch in range(first, plan['epochs'] + 1):
    with open(log, 'a') as scalars:
        for step in (5, 10):
            print(f'Epoch(train) [{epoch}][{step:3}/10]  loss: 1.0', flush=True)
            scalars.write(json.dumps(dict(loss=1.0, time=epoch / 100, epoch=epoch, step=step)) + '\\n')
        with zipfile.ZipFile(folder / f'epoch_{epoch}.pth', 'w') as file:
            meta = dict(epoch=epoch, iter=10 * epoch)
            file.writestr('epoch/data.pkl', pickle.dumps(dict(meta=meta, state_dict={}, optimizer={}), 2))
        if name in plan.get('waits', []) and epoch == 2:
            (folder / 'waits').write_text(str(os.getpid()))
            time.sleep(60)
        score = plan['scores'][method] + seed * 0.01 - (plan['epochs'] - epoch) * 0.1
        found = {} if name in plan.get('blind', []) else {'coco/bbox_mAP': score, 'coco/bbox_mAP_50': 0.9}
        scalars.write(json.dumps({**found, 'time': 1.0, 'step': epoch}) + '\\n')
(folder / 'student.pth').write_text('the student')
'''
EPOCHS = 3
SCORES = {'none': 0.40, 'kd': 0.45, 'ckd': 0.44}
TESTS = {'none/0': 0.30, 'none/1': 0.32, 'kd/0': 0.33, 'kd/1': 0.37, 'the_teacher_on_test': 0.5}


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes the plan of the script that plays ``tools/train.py`` and ``tools/test.py``."""
    script, plan = tmp_path / 'played.py', tmp_path / 'plan.json'
    script.write_text(PLAYED.replace('PLAN', repr(str(plan))))
    monkeypatch.setattr(runs, 'TRAIN', (sys.executable, str(script), 'train'))
    for module in (main, testing):
        monkeypatch.setattr(module, 'TEST', (sys.executable, str(script), 'test'))

    def write(**changes: Any) -> None:
        plan.write_text(json.dumps({'epochs': EPOCHS, 'teacher': 0.6, 'scores': SCORES, 'tests': TESTS, **changes}))

    write()
    return write


def a_matrix(folder: Path, methods: Sequence[str | Method] = ('none', 'kd'), seeds: Sequence[int] = (0, 1),
             **changes: Any) -> Matrix:
    """Of configs that hold no more than a schedule."""
    settings = Settings('student.py', 'teacher.py', [], seeds, folder,
                        **{'jobs': 2, 'metric': 'coco/bbox_mAP', **changes})
    made = [method if isinstance(method, Method) else Method(method, a_config(method)) for method in methods]
    identity = dict(student=dict(config='student.py', digest='s'), teacher=dict(config='teacher.py', digest='t'),
                    teacher_checkpoint=dict(path='teacher.pth', digest='c'), epochs=EPOCHS, options={})
    on_test = [Config(dict(model=dict(type=name), test_dataloader=dict(dataset=dict(ann_file='test.json'))))
               for name in ('Detector', 'Teacher') if settings.report_on == 'test']
    return Matrix(settings, made, list(seeds), 'teacher.pth', Config(dict(model=dict(type='Teacher'))), None, identity,
                  *on_test)


def a_config(method: str) -> Config:
    return Config(dict(model=dict(type='Detector', method=method),
                       train_cfg=dict(by_epoch=True, max_epochs=EPOCHS, val_interval=1)))


def run(matrix: Matrix) -> Found:
    """Train the matrix and write its report, as :func:`ckd_mmdet.lab.compare.main.run_matrix` does with a real one."""
    keep_matrix(matrix)
    main.train(matrix, runs.make_runs(matrix), None, 0.02)
    if matrix.settings.report_on == 'test':
        main.test(matrix, None, 0.02)
    return write_report(matrix.settings.out, matrix.settings.metric, matrix.settings.report_on)


def calls(folder: Path, name: str) -> list[str]:
    """The command lines with which a run was started."""
    path = folder / 'runs' / name / 'calls.txt'
    return path.read_text().splitlines() if path.exists() else []
