"""The shipped configs of classifiers, with random weights: nothing is downloaded, no data set is needed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import ckd_mmdet.compat  # noqa: F401  first: mmpretrain's modules need its operators
import pytest
import torch
from ckd_mmdet.classification.backbones import ZOO
from ckd_mmdet.config import DISTILLER, read_config
from ckd_mmdet.registry import MODELS as OUR_MODELS
from ckd_mmdet.teacher import zoo_address
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from tests.configs.shrunken import shapes_alone as without_memory
from tests.configs.table import config_of, rows, whole
from tests.small_runs import ROOT, train

CONFIGS = ROOT / 'configs/classification'

PAIRS = {  # CKD, arXiv 2404.14109: images a step, learning rate, weight, temperature; DKD's beta
    ('resnet56', 'resnet20'): (64, 0.05, 10, 1, 2),
    ('resnet110', 'resnet32'): (64, 0.05, 10, 1, 2),
    ('resnet32x4', 'resnet8x4'): (64, 0.05, 100, 1, 8),
    ('wrn_40_2', 'wrn_16_2'): (64, 0.05, 100, 1, 6),
    ('wrn_40_2', 'wrn_40_1'): (32, 0.05, 50, 2, 6),
    ('vgg13', 'vgg8'): (64, 0.05, 100, 1, 6),
    ('vgg13', 'mobilenetv2'): (32, 0.01, 50, 2, 6),
    ('resnet50', 'mobilenetv2'): (32, 0.01, 100, 1, 8),
    ('resnet32x4', 'shufflev1'): (32, 0.01, 100, 1, 8),
    ('resnet32x4', 'shufflev2'): (64, 0.01, 100, 1, 8),
    ('wrn_40_2', 'shufflev1'): (32, 0.01, 100, 1, 8),
}
LARGE = {('resnet34', 'resnet18'): 0.5, ('resnet50', 'mobilenetv1'): 2}  # DKD's beta
SAME_WIDTH = [('wrn_40_2', 'wrn_16_2'), ('resnet56', 'resnet20'), ('resnet110', 'resnet32'),
              ('resnet32x4', 'resnet8x4'), ('vgg13', 'vgg8')]
PUBLISHED = {'resnet50': 'ResNet50'}  # by which name RepDistiller and mdistiller publish it, where it is another
VARIABLES = {path.stem for part in ('alignments', 'pipelines') for path in (CONFIGS / '_base_' / part).glob('*.py')}
"""Of each of these files, one of its name."""
ZOO_NAMES = {name.lower(): name for name in ZOO}


@lru_cache
def read(name: str) -> Config:
    """Of a file, or of the row of configs/README.md that stands for it."""
    return read_config(CONFIGS / name) if (CONFIGS / name).exists() else config_of(f'classification/{name}')


def names(folder: str = '.') -> list[str]:
    return sorted(str(path.relative_to(CONFIGS)) for path in (CONFIGS / folder).rglob('*.py')
                  if '_base_' not in path.parts)


ROWS = [name.removeprefix('classification/') for name in rows() if name.startswith('classification/')]


DISTILLED = [name for name in names() if '-' in name]  # between teacher and student
PLAIN = [name for name in names() if name not in DISTILLED]


def parts(name: str) -> tuple[str, str, str, str]:
    """Method, teacher, student, and the rest, of a distilled config's name."""
    method, _, rest = Path(name).stem.partition('_')
    teacher, _, rest = rest.partition('-')
    student = max((plain for plain in students() if rest.startswith(f'{plain}_')), key=len)
    return method, teacher, student, rest.removeprefix(f'{student}_')


def students() -> set[str]:
    return {Path(name).stem.rsplit('_', 2)[0] for name in PLAIN}


def plain_twin(name: str) -> str:
    _, _, student, rest = parts(name)
    return f'baselines/{student}_{rest.removeprefix("4views_")}.py'


def build(cfg: Config, **teacher: Any) -> nn.Module:
    model = copy.deepcopy(cfg.model)
    if teacher:
        model.teacher = teacher
    return MODELS.build({'_scope_': 'mmpretrain', **model, 'data_preprocessor': copy.deepcopy(cfg.data_preprocessor)})


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # teachers are named from here


@pytest.fixture
def shapes_alone() -> Iterator[None]:
    with without_memory():
        yield


@pytest.fixture(scope='module')
def random_teacher(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict]:
    """Gives a teacher's config the checkpoint of a model with random weights, saved once for each and each device."""
    folder, saved = tmp_path_factory.mktemp('teachers'), {}

    def with_checkpoint(config: str) -> dict:
        key = config, torch.empty(0).device
        if key not in saved:
            saved[key] = str(folder / f'{len(saved)}.pth')
            torch.save(dict(state_dict=build(read_config(config)).state_dict()), saved[key])
        # without memory a tensor is rebuilt by a function that no ordinary checkpoint asks for, and no image is read
        shapes = dict(trusted=True, check_preprocessing=False) if key[1].type == 'meta' else {}
        return dict(config=config, checkpoint=saved[key], check_accuracy=False, **shapes)

    return with_checkpoint


@pytest.mark.parametrize('path', sorted(CONFIGS.rglob('*.py')), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_a_config_has_under_20_lines(path):
    assert len(path.read_text().splitlines()) < 20


@pytest.mark.parametrize('name', PLAIN)
def test_a_plain_config_builds_and_its_head_fits_its_backbone(name, shapes_alone):
    cfg = read(name)
    model = build(cfg)
    assert getattr(model.backbone, 'out_channels', model.head.in_channels) == model.head.in_channels
    assert model.head.num_classes == cfg.data_preprocessor.num_classes
    assert {'train_cfg', 'optim_wrapper', 'param_scheduler', 'train_dataloader', 'val_evaluator'} <= set(cfg)
    assert cfg.default_scope == 'mmpretrain'
    assert (cfg.val_evaluator.type, cfg.val_evaluator.topk) == ('Accuracy', (1, 5))
    assert cfg.auto_scale_lr.base_batch_size == cfg.train_dataloader.batch_size
    scheduler, = cfg.param_scheduler
    assert scheduler.end == cfg.train_cfg.max_epochs


@pytest.mark.parametrize('name', [name for name in PLAIN if 'cifar100' in name])
def test_a_plain_config_of_cifar_has_the_model_of_its_name(name):
    backbone = read(name).model.backbone.to_dict()
    backbone.pop('out_indices', None)  # more maps than the head sees
    assert backbone == ZOO[ZOO_NAMES[Path(name).stem.rsplit('_', 2)[0]]]


@pytest.mark.parametrize('name', DISTILLED)
def test_a_distilled_config_builds_and_its_student_equals_the_plain_one(name, random_teacher, shapes_alone):
    cfg = read(name)
    distiller = build(cfg, **random_teacher(cfg.model.teacher.config))
    plain = build(read(plain_twin(name)))
    assert {key: value.shape for key, value in distiller.state_dict().items()} == \
        {key: value.shape for key, value in plain.state_dict().items()}
    assert cfg.model.type == DISTILLER
    assert list(distiller.distillation.alignments) == (['neck'] if parts(name)[0] == 'reviewkd' else ['image'])
    assert getattr(distiller.data_preprocessor, 'views', 1) == (4 if has_views(name) else 1)


def has_views(name: str) -> bool:
    return name.startswith('pckd/') and ('4views' in name or 'digits' not in name)


@pytest.mark.parametrize('name', DISTILLED)
def test_a_distilled_config_differs_from_its_plain_twin_in_what_the_method_asks_for(name):
    ours, plain = read(name).to_dict(), read(plain_twin(name)).to_dict()
    changed = {key for key in set(ours) | set(plain) if ours.get(key) != plain.get(key)}
    assert changed - {'model', *VARIABLES} == (
        ({'data_preprocessor', 'train_dataloader'} if has_views(name) else set())
        | ({'auto_scale_lr'} if 'wrn_40_1' in name and 'pckd' in name else set()))
    student = ours['model']['student']
    if parts(name)[0] == 'kd':
        assert student['head']['loss'].pop('loss_weight') < plain['model']['head']['loss'].pop('loss_weight') == 1
    assert student == plain['model']


def losses(name: str) -> list[dict]:
    image, = read(name).model.alignments.values()
    assert image.aligner.type.removeprefix('ckd_mmdet.') == 'ImageAligner'
    return with_defaults(image.losses)


def with_defaults(given: dict) -> list[dict]:
    return sorted((whole(loss, OUR_MODELS) for loss in given.values()), key=repr)


def run_of(name: str) -> dict:
    """What a run costs, and how it learns."""
    cfg = read(name)
    scheduler, = cfg.param_scheduler
    return dict(epochs=cfg.train_cfg.max_epochs, images=cfg.train_dataloader.batch_size,
                optimizer=cfg.optim_wrapper.optimizer.to_dict(),
                schedule=scheduler.get('milestones') or (scheduler.type, scheduler.T_max, scheduler.eta_min))


def sgd(lr: float, weight_decay: float) -> dict:
    return dict(type='SGD', lr=lr, momentum=0.9, weight_decay=weight_decay)


SCHEDULES = {480: ('CosineAnnealingLR', 480, 0.0), 240: [150, 180, 210]}
WARM_UP = dict(value=1.0, warm_up=20)


@pytest.mark.parametrize('epochs', SCHEDULES)
@pytest.mark.parametrize('pair', PAIRS, ids='-'.join)
def test_a_pair_of_cifar_has_its_released_settings_under_both_budgets(pair, epochs):
    images, lr, weight, temperature, beta = PAIRS[pair]
    stem = f'{"-".join(pair)}_{epochs}e_cifar100.py'
    methods = {
        f'ckd/ckd_{stem}': dict(
            loss_ckd=dict(type='ckd_mmdet.CKDLoss', temperature=temperature, loss_weight=weight)),
        f'baselines/kd_{stem}': dict(loss_kd=dict(type='ckd_mmdet.KDLoss', temperature=4, loss_weight=0.9)),
        f'baselines/dkd_{stem}': dict(
            loss_dkd=dict(type='ckd_mmdet.DKDLoss', alpha=1, beta=beta, temperature=4, loss_weight=WARM_UP)),
    }
    for name, expected in methods.items():
        assert losses(name) == with_defaults(expected)
        assert run_of(name) == dict(epochs=epochs, images=images, optimizer=sgd(lr, 5e-4), schedule=SCHEDULES[epochs])
        assert read(name).model.teacher.to_dict() == teacher_of_cifar(pair[0])
        assert read(name).model.student.head.loss.loss_weight == (0.1 if '/kd_' in name else 1)


def teacher_of_cifar(name: str) -> dict:
    return dict(config=f'configs/classification/baselines/{name}_240e_cifar100.py',
                checkpoint=f'checkpoints/cifar100/{PUBLISHED.get(name, name)}_vanilla/ckpt_epoch_240.pth')


def test_cifar_is_preprocessed_as_for_the_published_teachers():
    of_unit = dict(mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761))
    for name in [name for name in [*names(), *ROWS] if 'cifar100' in name]:
        preprocessor = read(name).data_preprocessor
        assert {key: preprocessor[key] for key in of_unit} == {
            key: pytest.approx([255 * value for value in values]) for key, values in of_unit.items()}
        assert not preprocessor.to_rgb


@pytest.mark.parametrize(('data', 'run'), [
    ('200e_imagenet', dict(epochs=200, images=512, optimizer=sgd(0.2, 1e-4), schedule=('CosineAnnealingLR', 200, 0.0))),
    ('100e_places365', dict(epochs=100, images=256, optimizer=sgd(0.2, 1e-4), schedule=[30, 60, 90]))])
@pytest.mark.parametrize('pair', LARGE, ids='-'.join)
def test_a_pair_of_large_images_has_its_released_settings(pair, data, run):
    stem = f'{"-".join(pair)}_{data}.py'
    methods = {
        f'ckd/ckd_{stem}': dict(loss_ckd=dict(type='ckd_mmdet.CKDLoss', temperature=1, loss_weight=10)),
        f'baselines/kd_{stem}': dict(loss_kd=dict(type='ckd_mmdet.KDLoss', temperature=1, loss_weight=0.5)),
        f'baselines/dkd_{stem}': dict(loss_dkd=dict(type='ckd_mmdet.DKDLoss', alpha=1, beta=LARGE[pair], temperature=1,
                                                    loss_weight=dict(value=1.0, warm_up=1)))}
    for name, expected in methods.items():
        assert losses(name) == with_defaults(expected)
        assert run_of(name) == run
        assert read(name).model.student.head.loss.loss_weight == (0.5 if '/kd_' in name else 1)


def test_places365_has_its_own_images_and_classes_on_both_sides():
    cfg = read('ckd/ckd_resnet50-mobilenetv1_100e_places365.py')
    for loader, split in ((cfg.train_dataloader, 'train'), (cfg.val_dataloader, 'val'), (cfg.test_dataloader, 'val')):
        dataset = loader.dataset
        assert (dataset.type, dataset.data_root, dataset.data_prefix) == ('CustomDataset', 'data/places365_standard',
                                                                          split)
        assert 'split' not in dataset and dataset.pipeline[-1].type == 'PackInputs'
    assert cfg.model.student.head.num_classes == cfg.data_preprocessor.num_classes == 365
    assert read_config(cfg.model.teacher.config).model.head.num_classes == 365


@pytest.mark.parametrize('name', sorted({*DISTILLED, *ROWS}))
def test_a_teachers_weights_are_published_or_trained_by_one_of_our_configs(name):
    teacher = read(name).model.teacher
    if teacher.get('checkpoint', 'https://').startswith('https://'):
        assert zoo_address(teacher.config).startswith('https://')
    elif teacher.checkpoint.startswith('work_dirs/'):
        config = Path(teacher.config)
        epochs = read_config(config).train_cfg.max_epochs
        assert teacher.checkpoint == f'work_dirs/{config.stem}/epoch_{epochs}.pth'
    else:
        assert teacher.checkpoint.startswith('checkpoints/cifar100/')


PCKD = dict(
    loss_contrast=dict(type='ckd_mmdet.CategoryContrastLoss', temperature=4, preview=dict(base=1.005),
                       loss_weight=0.05),
    loss_centers=dict(type='ckd_mmdet.CenterAlignmentLoss', loss_weight=1),
    loss_features=dict(type='ckd_mmdet.FeatureAlignmentLoss', expansion=16, loss_weight=20))


@pytest.mark.parametrize('pair', [*SAME_WIDTH, ('wrn_40_2', 'wrn_40_1')], ids='-'.join)
def test_pckd_has_the_published_settings(pair):
    name = f'pckd/pckd_{"-".join(pair)}_240e_cifar100.py'
    assert losses(name) == with_defaults({key: loss for key, loss in PCKD.items()
                                         if pair in SAME_WIDTH or key != 'loss_centers'})
    assert run_of(name) == dict(epochs=240, images=64, optimizer=sgd(0.05, 5e-4), schedule=[150, 180, 210])
    assert read(name).model.teacher.to_dict() == teacher_of_cifar(pair[0])
    views, pack = read(name).train_dataloader.dataset.pipeline
    *plain, last = read(plain_twin(name)).train_dataloader.dataset.pipeline
    assert views == dict(type='ckd_mmdet.RotatedViews', transforms=plain) and pack == last
    assert read(name).data_preprocessor.type == 'ckd_mmdet.ViewsPreprocessor'


@pytest.mark.parametrize('pair', [*SAME_WIDTH, ('wrn_40_2', 'wrn_40_1')], ids='-'.join)
def test_centres_are_aligned_just_where_both_end_in_one_width(pair):
    student, teacher = (read(f'baselines/{name}_240e_cifar100.py').model.head.in_channels for name in pair[::-1])
    assert (student == teacher) == (pair in SAME_WIDTH)


@pytest.mark.parametrize('name', [name for name in DISTILLED if 'digits' in name])
def test_a_config_of_digits_takes_two_optimizer_steps(name, random_teacher, tmp_path):
    cfg = copy.deepcopy(read(name))
    cfg.model.teacher = random_teacher(cfg.model.teacher.config)
    cfg.train_dataloader.batch_size, cfg.train_dataloader.dataset.images_per_class = 5, 1
    cfg.train_cfg.update(max_epochs=1)
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator', 'test_cfg', 'test_dataloader', 'test_evaluator'):
        cfg[key] = None
    cfg.default_hooks.checkpoint = None
    cfg.default_hooks.logger.interval = 1
    cfg.update(work_dir=str(tmp_path), experiment_name=tmp_path.name, log_level='WARNING')

    steps = train(cfg)

    assert len(steps) == 2
    for key in ('loss', *(f'image.{key}' for key in read(name).model.alignments.image.losses)):
        assert all(0 < step[key] < float('inf') for step in steps) and steps[0][key] != steps[1][key]
    assert steps[-1]['image.rows'] == 5  # of four views the plain ones are counted; what is measured is logged last
