"""What the page reads from the logs of the runs."""

import json
from pathlib import Path

import pytest
import torch
from ckd_mmdet.lab.compare.found import Found, read_matrix
from ckd_mmdet.lab.page.logs import agreement_charts, cost_table, parameters, read_logs

from tests.lab.compare.test_report import report


@pytest.fixture
def logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Found]:
    for name in ('by_epoch', 'gap_closed'):
        monkeypatch.setattr(f'ckd_mmdet.lab.compare.plots.{name}', lambda *args: b'')
    report(tmp_path)
    for method in ('none', 'kd'):
        for seed in range(3):
            path = tmp_path / f'runs/{method}/{seed}/1/vis_data/scalars.json'
            path.parent.mkdir(parents=True)
            ours = {'roi.cosine': 0.0, 'roi0.retrieval': 0.5, 'roi1.retrieval': 0.5} if method == 'kd' else {}
            path.write_text(''.join(json.dumps(dict(
                loss=1.0, epoch=epoch, step=step, time=0.1, memory=100 + step,
                **{key: value + epoch / 10 + seed / 100 + step / 1000 for key, value in ours.items()})) + '\n'
                for epoch in (1, 2) for step in (1, 3)) + json.dumps({'coco/bbox_mAP': 0.4, 'step': 2}))
    return tmp_path, read_matrix(tmp_path)


def test_agreement_is_the_mean_over_an_epoch_then_over_the_seeds(logged: tuple,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict = {}
    monkeypatch.setattr('ckd_mmdet.lab.page.logs.line_chart',
                        lambda title, lines, *_, **__: seen.update({title: lines}))
    agreement_charts(read_logs(*logged), logged[1])
    cosine = seen["Cosine of the student's rows with the teacher's"]
    assert list(cosine) == ['kd'] and cosine['kd']['mean'].tolist() == pytest.approx([0.112, 0.212])
    assert cosine['kd']['std'].tolist() == pytest.approx([0.01, 0.01])
    assert [title[-17:] for title in list(seen)[1:]] == [' (roi0.retrieval)', ' (roi1.retrieval)']


def test_the_cost_is_of_a_step_of_memory_and_of_a_run(logged: tuple) -> None:
    folder, found = logged
    for path in folder.glob('runs/kd/*/result.json'):
        path.write_text(json.dumps(dict(json.loads(path.read_text()), seconds=90)))
    table = cost_table(folder, read_logs(folder, found), found)
    assert table.head == ['method', 's/step', 'of the student alone', 'GPU memory, MB', 'minutes a run']
    assert [text for text, _ in table.rows[1].cells] == ['kd', '0.2', '1.00 ×', '103', '1.5']
    assert table.rows[0].cells[4] == ('', '')


def test_without_logs_there_is_no_agreement_and_no_memory(logged: tuple) -> None:
    folder, found = logged
    for path in folder.rglob('scalars.json'):
        path.unlink()
    logs = read_logs(folder, found)
    assert agreement_charts(logs, found) == []
    assert 'GPU memory, MB' not in cost_table(folder, logs, found).head


def test_parameters_are_counted_where_a_checkpoint_is_there(logged: tuple, capsys: pytest.CaptureFixture) -> None:
    folder, found = logged
    assert parameters(folder, found) == ''
    weights = {'a.weight': torch.zeros(2000, 500), 'bn.running_mean': torch.zeros(9), 'bn.num_batches_tracked':
               torch.tensor(1)}
    torch.save(dict(state_dict=weights, meta={}), folder / 'runs/kd/1/student.pth')
    assert parameters(folder, found) == 'Parameters: student 1 million.'
    torch.save(dict(state_dict=weights | {'b.weight': torch.zeros(500, 1000)}, meta={}), folder / 'teacher.pth')
    found.matrix['teacher_checkpoint']['path'] = str(folder / 'teacher.pth')
    assert parameters(folder, found) == 'Parameters: student 1 million, teacher 1.5 million.'
    assert capsys.readouterr().out == ''
    (folder / 'runs/kd/1/student.pth').write_text('broken')
    assert parameters(folder, found) == 'Parameters: teacher 1.5 million.'
