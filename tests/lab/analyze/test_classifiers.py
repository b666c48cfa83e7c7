"""The same of classifiers: rows are images."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ckd_mmdet.lab.analyze.data import choose_images
from ckd_mmdet.lab.analyze.main import Analysis, analyze
from ckd_mmdet.lab.analyze.rows import listen, make_pair, open_student
from mmengine.config import Config

from tests.classification.toys import built, classifier_config, saved


def config(arch: str, **preprocessor: Any) -> Config:
    model = classifier_config(arch, classes=10)
    model['data_preprocessor'].update(preprocessor)
    data = dict(type='ckd_mmdet.HandwrittenDigits', pipeline=[dict(type='PackInputs')])
    return Config(dict(
        default_scope='mmpretrain', model=model,
        train_dataloader=dict(batch_size=20, num_workers=0, dataset=dict(data, split='train')),
        val_dataloader=dict(batch_size=20, num_workers=0, dataset=dict(data, split='test'))))


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configs and random weights of a student, one that trains on views, and a teacher."""
    folder = tmp_path_factory.mktemp('classifiers')
    for name, cfg in (('student', config('resnet8')), ('teacher', config('resnet14')),
                      ('views', config('resnet8', type='ckd_mmdet.ViewsPreprocessor'))):
        cfg.dump(folder / f'{name}.py')
        saved(built(cfg.model), folder / f'{name}.pth')
    return folder


def settings(folder: Path, out: Path, student: str = 'student') -> Analysis:
    return Analysis(str(folder / f'{student}.py'), [str(folder / f'{student}.pth')], ['kd'],
                    str(folder / 'teacher.py'), str(folder / 'teacher.pth'), out, batches=3, examples=4)


@pytest.mark.parametrize('student', ['student', 'views'])
def test_pictures_and_numbers_are_of_images(student: str, folder: Path, tmp_path: Path) -> None:
    written = analyze(settings(folder, tmp_path, student))
    assert [path.name for path in written] == ['logits.png', 'standardised.png', 'correlation.png', 'features.png',
                                               'difficulty_kd.png', 'analysis.json']
    found = json.loads(written[-1].read_text())
    assert found['classes'][:2] == ['zero', 'one'] and len(found['classes']) == 10
    assert found['aligner'] == 'ImageAligner'
    assert found['students']['kd']['rows'] == found['students']['kd']['foreground_rows'] == found['images'] == 60
    assert {one['of'] for one in found['features']} == {'features'}
    examples, = found['difficulty']['kd']['examples'].values()
    assert [one['difficulty'] for one in examples] == sorted(one['difficulty'] for one in examples)


def test_rows_are_what_the_plain_classifiers_say(folder: Path) -> None:
    cfg, _ = open_student(str(folder / 'student.py'))
    pair = make_pair(cfg, str(folder / 'teacher.py'), str(folder / 'teacher.pth'))
    images = choose_images(cfg, 2)
    samples = listen(pair, 'kd', str(folder / 'student.pth'), images).samples
    assert samples.image_ids.tolist() == list(range(40))
    assert samples.labels.tolist() == [int(images.dataset[i]['data_samples'].gt_label) for i in images.index]
    for name, side in (('student', samples.student), ('teacher', samples.teacher)):
        model = built(Config.fromfile(folder / f'{name}.py').model).eval()
        model.load_state_dict(torch.load(folder / f'{name}.pth')['state_dict'])
        inputs = model.data_preprocessor(dict(inputs=[images.pixels(i) for i in range(40)]))['inputs']
        with torch.no_grad():
            feats = model.extract_feat(inputs)
            assert torch.allclose(side.features, feats[-1], atol=1e-5)
            assert torch.allclose(side.logits, model.head(feats), atol=1e-5)
