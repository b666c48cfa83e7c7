import dataclasses
import json
from contextlib import ExitStack

import pytest
import torch
from ckd_mmdet.lab.benchmark import main as subject
from ckd_mmdet.lab.benchmark.main import benchmark, markdown, table
from ckd_mmdet.lab.benchmark.measure import Spread, measure_memory, measure_seconds
from ckd_mmdet.lab.benchmark.steps import Setting, Steps, random_boxes
from ckd_mmdet.lab.benchmark.variants import BY_DEFAULT, VARIANTS
from ckd_mmdet.losses import CKDLoss
from ckd_mmdet.taps import ModuleTap
from mmengine.config import Config

from tests.small_runs import distilled, run_tool
from tests.toys import saved_teacher, toy_config

ROI_HEADS = dict(alone=1, live=1, floor=1, released_order=2)
TEACHER_HEADS = dict(alone=0, live=1, floor=1, released_order=1)
LOSSES = dict(alone=0, live=1, floor=0, released_order=1)


def write_config(folder, model):
    path = folder / 'toy.py'
    sgd = dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4)
    Config(dict(model=model, optim_wrapper=dict(type='OptimWrapper', optimizer=sgd))).dump(path)
    return str(path)


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """A toy pair; its teacher's checkpoint does not exist, as one that nobody has downloaded."""
    teacher = dict(config=dict(model=toy_config('faster_rcnn')), checkpoint='nowhere.pth')
    return write_config(tmp_path_factory.mktemp('config'), distilled(toy_config('faster_rcnn'), teacher))


@pytest.fixture(scope='module')
def setting(config, tmp_path_factory):
    weights = saved_teacher(tmp_path_factory.mktemp('teacher'), toy_config('faster_rcnn'))
    return Setting(config, weights, size=(64, 96))


@pytest.fixture(scope='module')
def steps(setting):
    return Steps(setting)


def test_the_tool_writes_what_it_prints(config, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'benchmark.json'
    run_tool(monkeypatch, 'benchmark', config, '--size', '64x96', '--rounds', '3', '--no-memory', '--device', 'cpu',
             '--proposals', 'fixed', '--markdown', '--out', out)
    report = json.loads(out.read_text())
    said = capsys.readouterr().out
    assert table(report) in said and markdown(report) in said
    assert set(report) == {'setting', 'machine', 'rows', 'kind', 'seconds', 'ratios', 'peak_memory_mb', 'checkpoint_mb'}
    assert report['setting']['size'] == [64, 96]
    assert report['rows'] == 2 * 16 and report['kind'] == 'RoIs'
    without = {name: value for name, value in report['seconds'].items() if name != 'released_order'}
    assert '32 RoIs (fixed proposals)' in table(dict(report, seconds=without))
    assert set(report['seconds']) == set(BY_DEFAULT)
    assert set(report['ratios']) == {'live/floor', 'released_order/live', 'live/alone', 'floor/alone',
                                     'released_order/alone'}
    for spread in (*report['seconds'].values(), *report['ratios'].values()):
        assert 0 < spread['min'] <= spread['median'] <= spread['max']
        assert 0 <= spread['iqr'] <= spread['max'] - spread['min']
    assert report['peak_memory_mb'] is None
    sizes = report['checkpoint_mb']
    assert sizes['distilled'] == pytest.approx(sizes['student'], rel=0.01)
    assert sizes['student_and_teacher'] == pytest.approx(2 * sizes['student'], rel=0.05)


@pytest.mark.parametrize('variant', BY_DEFAULT)
def test_each_variant_runs_heads_and_losses_as_often_as_it_says(steps, variant):
    model = steps.student
    loss, = model.distillation.losses.values()
    assert isinstance(loss, CKDLoss)
    with ExitStack() as stack:
        student, teacher, ours = (stack.enter_context(ModuleTap(module, name)) for module, name in (
            (model.roi_head.bbox_head, 'student'),
            (model.distillation.teachers[None].model.roi_head.bbox_head, 'teacher'),
            (loss, 'loss')))
        assert steps(variant, seed=0) > 0
    assert len(student.calls) == ROI_HEADS[variant]
    assert len(teacher.calls) == TEACHER_HEADS[variant]
    assert len(ours.calls) == LOSSES[variant]
    assert all(call.output[0].requires_grad for call in student.calls)
    assert not any(call.output[0].requires_grad for call in teacher.calls)


def test_a_cached_teacher_is_not_asked_and_the_live_one_is_again_afterwards(setting):
    steps = Steps(dataclasses.replace(setting, variants=('live', 'cached')))
    live = steps.student.distillation.teachers[None].model
    asked = {}
    for variant in ('cached', 'live'):
        with ModuleTap(live.roi_head.bbox_head, 'teacher') as teacher, \
                ModuleTap(steps.student.roi_head.bbox_head, 'student') as student:
            assert steps(variant, seed=0) > 0
        asked[variant] = len(student.calls), len(teacher.calls)
    assert asked == dict(cached=(2, 0), live=(1, 1))


def test_the_released_order_has_the_distillers_own_losses_and_gradients(steps):
    found = {}
    for variant in ('live', 'released_order'):
        torch.manual_seed(0)
        data = steps.student.data_preprocessor(steps.batch, training=True)
        losses = VARIANTS[variant].losses(steps.student, **data)
        gradient, = torch.autograd.grad(steps.student.parse_losses(losses)[0],
                                        steps.student.roi_head.bbox_head.fc_cls.weight)
        found[variant] = losses['roi.loss_ckd'], losses['loss_cls'], gradient
    for ours, theirs in zip(found['live'], found['released_order'], strict=True):
        torch.testing.assert_close(ours, theirs)
    assert found['live'][2].any()


def test_all_variants_of_a_round_meet_the_same_student_and_the_same_rois(steps):
    before = {name: value.clone() for name, value in steps.student.state_dict().items()}
    rois = []
    for variant in BY_DEFAULT:
        with ModuleTap(steps.student.roi_head.bbox_roi_extractor, 'extractor') as extractor:
            steps(variant, seed=5)
        rois.append(extractor.calls[0].arg(1, 'rois'))
    assert all(torch.equal(rois[0], others) for others in rois[1:])
    for name, value in steps.student.state_dict().items():
        assert torch.equal(value, before[name]), name
    momenta = [state['momentum_buffer'] for state in steps.optimizer.optimizer.state.values()]
    assert momenta and any(momentum.any() for momentum in momenta)


def test_each_round_runs_each_variant_once_and_the_order_rotates():
    seen = []

    class Recorded:
        variants = BY_DEFAULT

        def __call__(self, variant, seed):
            seen.append((variant, seed))
            return float(seed)

    seconds = measure_seconds(Recorded(), rounds=4, warm_up=1)
    names = list(BY_DEFAULT)
    turns = [seen[i:i + 4] for i in range(0, len(seen), 4)]
    assert [[seed for _, seed in turn] for turn in turns] == [[i] * 4 for i in range(5)]
    assert [turn[0][0] for turn in turns] == [names[-1], *names]
    assert all({name for name, _ in turn} == set(names) for turn in turns)
    assert seconds == {name: [1.0, 2.0, 3.0, 4.0] for name in names}


def test_fixed_proposals_are_what_the_sampler_gets(setting):
    steps = Steps(dataclasses.replace(setting, proposals='fixed'))
    fixed = random_boxes(0, setting.size)
    assert (fixed[:, 2:] > fixed[:, :2]).all() and fixed.min() >= 0
    assert fixed[:, 2].max() <= 96 + 1e-3 and fixed[:, 3].max() <= 64 + 1e-3
    with ModuleTap(steps.student.roi_head.bbox_roi_extractor, 'extractor') as extractor:
        steps('alone', seed=0)
    rois = extractor.only().arg(1, 'rois')
    ground_truth = steps.batch['data_samples'][0].gt_instances.bboxes
    allowed = torch.cat([fixed, ground_truth])
    assert (rois[rois[:, 0] == 0, None, 1:] == allowed).all(2).any(1).all()


def test_the_memory_of_a_variant_is_that_of_a_process_of_its_own(setting):
    torch.ones(300 * 2**18)  # 300 MB here are not the other process's
    alone, distilled = (measure_memory(setting, variant) for variant in ('alone', 'live'))
    weights = sum(part.numel() * part.element_size() for part in Steps(setting).student.parameters()) / 2**20
    assert 3 * weights < alone < distilled  # with gradients and momentum


def test_spread_is_median_extremes_and_quartiles():
    assert Spread.of([4.0, 1.0, 2.0, 5.0, 3.0]) == Spread(median=3.0, min=1.0, max=5.0, iqr=2.0)
    assert Spread.of([2.0]) == Spread(median=2.0, min=2.0, max=2.0, iqr=0.0)


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--size', '64'], 'needs HEIGHTxWIDTH in pixels, such as 256x384, got 64'),
    (['--size', '8x64'], '`size` of at least 32x32, got 2 and 8x64'),
    (['--batch', '0'], '`batch` of at least 1'),
    (['--rounds', '0'], 'needs `rounds` of at least 1'),
    (['--warm-up', '-1'], 'no negative `warm_up`, got 15 and -1'),
    (['--proposals', 'none'], "invalid choice: 'none'"),
    (['--device', 'cpu', '--amp'], '`amp` needs a GPU'),
    (['--variants', 'alone', 'cold'], "invalid choice: 'cold'"),
    (['--variants', 'alone', 'alone'], 'each once, got alone, alone'),
    (['--out', 'nowhere/benchmark.json'], '--out needs a folder that exists'),
])
def test_bad_arguments_are_refused_before_anything_is_built(config, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(subject, 'Steps', None)
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, 'benchmark', config, *arguments)
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_gpu_that_is_not_there_is_refused(config):
    with pytest.raises(ValueError, match="`device` is 'cuda', but no GPU is here"):
        Setting(config, device='cuda')


def test_a_config_without_a_distiller_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r'needs the config of a `ckd_mmdet.Distiller` with `teacher`'):
        benchmark(Setting(write_config(tmp_path, toy_config('faster_rcnn'))))


def test_heads_with_stages_are_refused(tmp_path):
    cascade = toy_config('cascade_rcnn')
    model = distilled(cascade, dict(config=dict(model=cascade)))
    model['alignments']['roi']['aligner']['stage'] = 0
    with pytest.raises(ValueError, match='RoI heads without stages, got a staged student and teacher'):
        benchmark(Setting(write_config(tmp_path, model), size=(64, 96)))


# other speeds


def test_each_speed_has_a_teacher_of_its_own_and_the_student_trains_as_ever(setting):
    steps = Steps(dataclasses.replace(setting, variants=('alone', 'live', 'bf16', 'fast', 'floor')))
    speeds = {name: (teacher.speed.precision, teacher.speed.channels_last, teacher.speed.fuse)
              for name, teacher in steps.teachers.items()}
    assert speeds == dict(live=(None, False, False), bf16=('bf16', False, False), fast=('bf16', True, True),
                          floor=(None, False, False))
    assert steps.teachers['floor'] is steps.teachers['live']
    seconds = measure_seconds(steps, rounds=1, warm_up=0)
    assert list(seconds) == ['alone', 'live', 'bf16', 'fast', 'floor']
    with ModuleTap(steps.teachers['bf16'].model.roi_head.bbox_head, 'teacher') as asked:
        steps('bf16', seed=0)
        steps('live', seed=0)
    assert len(asked.calls) == 1


def test_a_teacher_is_built_for_those_that_need_one(setting):
    assert not Steps(dataclasses.replace(setting, variants=('alone',))).teachers


def test_the_markdown_table_has_a_row_for_each_variant():
    spread = dict(median=2.0, min=1.0, max=3.0, iqr=0.5)
    report = dict(seconds=dict(alone=spread, live=dict(spread, median=2.5)), peak_memory_mb=dict(alone=100.4, live=200),
                  ratios={'live/alone': dict(spread, median=1.25, iqr=0.02)})
    assert markdown(report).splitlines()[2:] == ['| alone | 2.000 | 0.500 | 1 |  | 100 |',
                                                 '| live | 2.500 | 0.500 | 1.25 | 0.02 | 200 |']
    assert len({line.count('|') for line in markdown(report).splitlines()}) == 1


# dense heads


@pytest.fixture(scope='module')
def dense_steps(tmp_path_factory):
    folder, retinanet = tmp_path_factory.mktemp('dense'), toy_config('retinanet')
    model = distilled(retinanet, dict(config=dict(model=retinanet), checkpoint='nowhere.pth'))
    model['alignments'] = dict(dense=dict(aligner=dict(type='DenseAligner'), selector=dict(type='TeacherTopK', k=50),
                                          losses=dict(loss_ckd=dict(type='CKDLoss'))))
    return Steps(Setting(write_config(folder, model), saved_teacher(folder, retinanet), size=(64, 96)))


def test_a_dense_head_has_no_released_order(dense_steps):
    assert dense_steps.variants == ('alone', 'live', 'floor')
    assert dense_steps.count_rows() == 50 and dense_steps.kind == 'anchors'


@pytest.mark.parametrize('variant, teacher_heads', [('alone', 0), ('live', 1), ('floor', 1)])
def test_each_variant_of_a_dense_head_runs_the_heads_as_often_as_it_says(dense_steps, variant, teacher_heads):
    model = dense_steps.student
    with ModuleTap(model.bbox_head, 'student') as student, \
            ModuleTap(model.distillation.teachers[None].model.bbox_head, 'teacher') as teacher:
        assert dense_steps(variant, seed=0) > 0
    assert (len(student.calls), len(teacher.calls)) == (1, teacher_heads)
    assert not any(level.requires_grad for call in teacher.calls for level in call.output[0])


def test_a_released_order_of_a_dense_head_is_refused(dense_steps):
    with pytest.raises(ValueError, match='no variant `released_order`'):
        Steps(dataclasses.replace(dense_steps.setting, variants=('released_order',)))
