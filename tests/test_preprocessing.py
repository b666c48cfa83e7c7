import random
from pathlib import Path

import numpy as np
import pytest
import torch
from ckd_mmdet.loading import pipeline_of
from ckd_mmdet.preprocessing import renormalization
from ckd_mmdet.teacher import FrozenTeacher
from mmcv.transforms import LoadImageFromFile
from mmdet.models import DetDataPreprocessor
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS, TRANSFORMS
from mmengine.structures import InstanceData
from PIL import Image
from torch import Tensor, nn

from tests.toys import saved_teacher, toy_batch, toy_config

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
CAFFE = dict(mean=[103.53, 116.28, 123.675], std=[1., 1., 1.])


@pytest.fixture(scope='module')
def config() -> dict:
    return toy_config('faster_rcnn')


@pytest.fixture(scope='module')
def checkpoint(config: dict, tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_teacher(tmp_path_factory.mktemp('teacher'), config)


def preprocessor(**settings: object) -> DetDataPreprocessor:
    return DetDataPreprocessor(**{**dict(pad_size_divisor=32), **settings})


def teacher_with(config: dict, checkpoint: str, data_preprocessor: DetDataPreprocessor) -> FrozenTeacher:
    teacher = FrozenTeacher(config, checkpoint)
    teacher.model.data_preprocessor = data_preprocessor
    return teacher


def raw_images() -> dict:
    """Two images of different size, neither a multiple of 32."""
    batch = toy_batch(num_items=[1, 1])
    batch['inputs'] = [torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8),
                       torch.randint(0, 256, (3, 64, 45), dtype=torch.uint8)]
    for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
        sample.set_metainfo(dict(img_shape=tuple(image.shape[1:])))
        sample.gt_instances = InstanceData(bboxes=torch.tensor([[0., 0., 9., 9.]]), labels=torch.tensor([0]))
    return batch


def seen_by(teacher: FrozenTeacher, inputs: Tensor, samples: list) -> Tensor:
    """What the teacher's backbone is fed with."""
    seen = []
    with teacher.model.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0])):
        teacher.extract_feat(inputs, samples)
    return seen[0]


# what the teacher is fed with

@pytest.mark.parametrize(('student', 'teacher'), [
    (dict(**IMAGENET, bgr_to_rgb=True), dict(**CAFFE, bgr_to_rgb=True)),
    (dict(**IMAGENET, bgr_to_rgb=True), dict(**IMAGENET, bgr_to_rgb=False)),
    (dict(**IMAGENET, bgr_to_rgb=True), dict(**CAFFE, bgr_to_rgb=False)),
    (dict(**CAFFE), dict(**IMAGENET, bgr_to_rgb=True)),
    (dict(), dict(**IMAGENET, bgr_to_rgb=True)),
    (dict(**IMAGENET, bgr_to_rgb=True), dict()),
    (dict(**IMAGENET), dict(**IMAGENET, pad_value=114)),
    (dict(**IMAGENET, pad_value=3), dict(**CAFFE, rgb_to_bgr=True, pad_value=114, pad_size_divisor=8)),
], ids=['mean and std', 'channels', 'both', 'the other way', 'raw student', 'raw teacher', 'padding', 'everything'])
def test_the_teacher_sees_what_its_own_preprocessor_makes(config: dict, checkpoint: str, student: dict,
                                                          teacher: dict) -> None:
    ours, theirs, raw = preprocessor(**student), preprocessor(**teacher), raw_images()
    expected = theirs({**raw}, False)['inputs']
    batch = ours({**raw}, False)
    before = batch['inputs'].clone()
    frozen = teacher_with(config, checkpoint, theirs)
    frozen.match_preprocessing(ours)
    seen = seen_by(frozen, batch['inputs'], batch['data_samples'])
    assert torch.equal(batch['inputs'], before)  # the student's own tensor stays
    height, width = expected.shape[2:]  # its own padding may be narrower
    assert (seen[..., :height, :width] - expected).abs().max() < 1e-4
    assert (seen[0, :, 50:] == theirs.pad_value).all() and (seen[1, :, :, 45:] == theirs.pad_value).all()


def test_an_equal_preprocessing_passes_the_same_tensor_through(config: dict, checkpoint: str) -> None:
    frozen = teacher_with(config, checkpoint, preprocessor(**IMAGENET))
    frozen.match_preprocessing(preprocessor(**IMAGENET))
    batch = preprocessor(**IMAGENET)(raw_images(), False)
    assert seen_by(frozen, batch['inputs'], batch['data_samples']) is batch['inputs']


def test_a_different_preprocessing_is_said(config: dict, checkpoint: str, capsys: pytest.CaptureFixture) -> None:
    MMLogger.get_instance('said', log_level='INFO')
    frozen = teacher_with(config, checkpoint, preprocessor(**CAFFE))
    frozen.match_preprocessing(preprocessor(**IMAGENET, bgr_to_rgb=True))
    said = ''.join(capsys.readouterr())
    assert 'renormalised' in said and '103.53, 116.28, 123.675' in said and 'swapped' in said


def test_the_answers_to_renormalised_inputs_are_those_to_its_own(config: dict, checkpoint: str) -> None:
    theirs, ours, raw = preprocessor(**CAFFE), preprocessor(**IMAGENET, bgr_to_rgb=True), raw_images()
    frozen = teacher_with(config, checkpoint, theirs)
    with torch.no_grad():
        expected = frozen.model.extract_feat(theirs({**raw}, False)['inputs'])
    frozen.match_preprocessing(ours)
    batch = ours({**raw}, False)
    for ours_level, own_level in zip(frozen.extract_feat(batch['inputs'], batch['data_samples']), expected,
                                     strict=True):
        assert torch.allclose(ours_level, own_level, atol=1e-3, rtol=1e-3)
        assert not ours_level.requires_grad


def test_views_of_images_of_different_sizes_are_padded_each_by_its_own(config: dict, checkpoint: str) -> None:
    """A batch of 4 views of 2 images has all first views, then all second ones."""
    ours, theirs, raw = preprocessor(**IMAGENET), preprocessor(**CAFFE, bgr_to_rgb=True, pad_value=114), raw_images()
    frozen = teacher_with(config, checkpoint, theirs)
    frozen.match_preprocessing(ours)
    batch = ours({**raw}, False)
    seen = seen_by(frozen, batch['inputs'].repeat(4, 1, 1, 1), batch['data_samples'])
    expected = theirs({**raw}, False)['inputs'].repeat(4, 1, 1, 1)
    assert seen.shape == expected.shape and (seen - expected).abs().max() < 1e-4


# preprocessors that do other than their settings say

class Inverted(DetDataPreprocessor):
    def forward(self, data: dict, training: bool = False) -> dict:
        data = super().forward(data, training)
        return {**data, 'inputs': -data['inputs']}


class InvertedInTraining(DetDataPreprocessor):
    def forward(self, data: dict, training: bool = False) -> dict:
        data = super().forward(data, training)
        return {**data, 'inputs': -data['inputs'] if training else data['inputs']}


class Noisy(DetDataPreprocessor):
    """Draws from all three generators, and asks for boxes and masks."""

    def forward(self, data: dict, training: bool = False) -> dict:
        data = super().forward(data, training)
        assert all(len(sample.gt_instances.bboxes) == len(sample.gt_instances.masks) for sample in data['data_samples'])
        noise = torch.rand(()) + np.random.rand() + random.random()
        return {**data, 'inputs': data['inputs'] + noise}


class Halved(DetDataPreprocessor):
    def forward(self, data: dict, training: bool = False) -> dict:
        data = super().forward(data, training)
        return {**data, 'inputs': data['inputs'][..., ::2, ::2]}


class Demanding(DetDataPreprocessor):
    def forward(self, data: dict, training: bool = False) -> dict:
        return super().forward({**data, 'inputs': data['left']}, training)


@pytest.mark.parametrize(('own', 'others', 'fact'), [
    (Inverted, DetDataPreprocessor, 'in testing differ by up to 5.2'),
    (DetDataPreprocessor, Inverted, 'in testing differ by up to 5.2'),
    (InvertedInTraining, DetDataPreprocessor, 'in training differ by up to 5.2'),
    (Halved, DetDataPreprocessor, 'in testing have shapes 2x3x32x48 and 2x3x64x96'),
    (Demanding, DetDataPreprocessor, r"the Demanding cannot read them \(KeyError: 'left'\)")])
def test_a_preprocessor_with_a_forward_of_its_own_is_refused(config: dict, checkpoint: str, own: type, others: type,
                                                             fact: str) -> None:
    frozen = teacher_with(config, checkpoint, others(**IMAGENET, pad_size_divisor=32))
    student = own(**IMAGENET, pad_size_divisor=32)
    said = f"the student's {own.__name__} and the teacher's .the given config. {others.__name__} .*{fact}"
    with pytest.raises(ValueError, match=rf'{said}.*`teacher.check_preprocessing=False`'):
        frozen.match_preprocessing(student)
    frozen.check_preprocessing = False
    frozen.match_preprocessing(student)  # the way out works


@pytest.mark.parametrize('kind', [Inverted, InvertedInTraining, Noisy, Halved])
def test_the_same_preprocessor_on_both_sides_is_as_good_as_the_plain_one(config: dict, checkpoint: str,
                                                                         kind: type) -> None:
    frozen = teacher_with(config, checkpoint, kind(**IMAGENET))
    frozen.match_preprocessing(kind(**IMAGENET))
    assert isinstance(frozen.renormalize, nn.Identity)


def test_the_comparison_leaves_no_trace(config: dict, checkpoint: str) -> None:
    student = Noisy(**IMAGENET, batch_augments=[dict(type='BatchSyncRandomResize', random_size_range=(32, 64))])
    draws = [torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()]
    teacher_with(config, checkpoint, Noisy(**IMAGENET)).match_preprocessing(student)
    assert torch.equal(torch.random.get_rng_state(), draws[0])
    assert (np.random.get_state()[1] == draws[1]).all() and random.getstate() == draws[2]
    assert student.batch_augments[0]._input_size is None


def test_the_argument_reaches_the_teacher(config: dict, checkpoint: str) -> None:
    assert not FrozenTeacher(config, checkpoint, check_preprocessing=False).check_preprocessing


# classifiers, and other kinds

VIEWS = 'ckd_mmdet.ViewsPreprocessor'
CLASSIFIER = 'mmpretrain.ClsDataPreprocessor'


@pytest.mark.parametrize('kinds', [(CLASSIFIER, CLASSIFIER), (VIEWS, CLASSIFIER), (CLASSIFIER, VIEWS), (VIEWS, VIEWS)])
def test_classifiers_and_their_views_are_compared(kinds: tuple[str, str]) -> None:
    pytest.importorskip('mmpretrain')
    ours, theirs = (MODELS.build(dict(type=kind, **settings)) for kind, settings in
                    zip(kinds, [dict(**IMAGENET, to_rgb=True), dict(**CAFFE)], strict=True))
    assert renormalization(ours, ours, 'net.py') is None
    found = renormalization(ours, theirs, 'net.py')
    assert found.flip
    theirs.forward = lambda data, training: dict(inputs=torch.zeros(8, 3, 40, 70))
    with pytest.raises(ValueError, match='BatchOfViews|ClsDataPreprocessor'):
        renormalization(ours, theirs, 'net.py')


def test_a_preprocessor_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match='distillation needs models with .* got BaseDataPreprocessor'):
        renormalization(BaseDataPreprocessor(), preprocessor(), 'net.py')


# what the pipelines do before

class LoadImageInRGB(LoadImageFromFile):
    def transform(self, results: dict) -> dict:
        results = super().transform(results)
        return {**results, 'img': results['img'][..., ::-1]}


class LoadImageFromStore(LoadImageFromFile):
    def transform(self, results: dict) -> dict:
        return {**results, 'img': results['store'][results['img_path']]}


LOAD, RGB, STORE = dict(type='LoadImageFromFile'), dict(type=LoadImageInRGB), dict(type=LoadImageFromStore)
GREY = dict(type='LoadImageFromFile', color_type='grayscale')
PILLOW = dict(type='LoadImageFromFile', imdecode_backend='pillow')
NORMALIZE = dict(type='mmcv.Normalize', mean=IMAGENET['mean'], std=IMAGENET['std'])  # which swaps the channels
REMOTE = dict(type='LoadImageFromFile', backend_args=dict(backend='petrel'))
PACK = dict(type='PackDetInputs')


def run_of(*pipeline: dict) -> Config:
    wrapped = dict(type='RepeatDataset', times=2, dataset=dict(type='CocoDataset', pipeline=[*pipeline, PACK]))
    return Config(dict(train_dataloader=dict(dataset=wrapped), default_scope='mmdet'))


def fed(image: np.ndarray, pipeline: list[dict], own: DetDataPreprocessor, folder: Path) -> Tensor:
    """What a network is fed with that is trained by this pipeline and preprocessor."""
    Image.fromarray(image).save(folder / 'image.png')
    results = dict(img_path=str(folder / 'image.png'))
    for part in pipeline:
        results = TRANSFORMS.build({'_scope_': 'mmdet', **part})(results)
    pixels = torch.from_numpy(results['img'].transpose(2, 0, 1).copy())
    sample = DetDataSample(metainfo=dict(img_shape=pixels.shape[1:]), gt_instances=InstanceData())
    return own(dict(inputs=[pixels], data_samples=[sample]), False)


@pytest.mark.parametrize(('student', 'teacher', 'ours', 'theirs'), [
    ([LOAD], [RGB], dict(**IMAGENET, bgr_to_rgb=True), dict(**IMAGENET)),
    ([LOAD], [RGB], dict(**IMAGENET), dict(**IMAGENET)),
    ([RGB], [LOAD], dict(**CAFFE), dict(**IMAGENET, bgr_to_rgb=True)),
    ([PILLOW], [LOAD], dict(**CAFFE), dict(**IMAGENET, bgr_to_rgb=True)),
    ([LOAD], [LOAD, NORMALIZE], dict(**IMAGENET, bgr_to_rgb=True), dict()),
    ([LOAD, NORMALIZE], [LOAD], dict(), dict(**CAFFE)),
    ([LOAD, NORMALIZE], [RGB, {**NORMALIZE, 'to_rgb': False}], dict(**CAFFE, bgr_to_rgb=True), dict(**CAFFE)),
], ids=['equal in effect', 'equal in settings', 'RGB student', 'pillow gives BGR', 'teacher normalised in its pipeline',
        'student normalised in its pipeline', 'both'])
def test_the_teacher_sees_what_its_own_pipeline_and_preprocessor_make(
        config: dict, checkpoint: str, tmp_path: Path, student: list, teacher: list, ours: dict, theirs: dict) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    frozen = teacher_with(config, checkpoint, preprocessor(**theirs))
    frozen.config = run_of(*teacher)
    frozen.match_preprocessing(preprocessor(**ours), run_of(*student))
    batch = fed(image, student, preprocessor(**ours), tmp_path)
    expected = fed(image, teacher, preprocessor(**theirs), tmp_path)['inputs']
    seen = seen_by(frozen, batch['inputs'], batch['data_samples'])
    assert (seen - expected).abs().max() < 1e-3


@pytest.mark.parametrize(('student', 'teacher'), [
    ([RGB], [RGB]), ([STORE], [STORE]), ([GREY], [LOAD]), ([LOAD], [REMOTE]), ([], [RGB]), ([RGB], []),
    ([LOAD, NORMALIZE], [LOAD, NORMALIZE])],
    ids=['alike', 'alike, whatever it is', 'grey', 'remote', 'no loader', 'no loader of the teacher', 'normalised'])
def test_pipelines_that_read_alike_or_cannot_be_compared_change_nothing(config: dict, checkpoint: str, student: list,
                                                                        teacher: list) -> None:
    frozen = teacher_with(config, checkpoint, preprocessor(**IMAGENET))
    frozen.config = run_of(*teacher)
    frozen.match_preprocessing(preprocessor(**IMAGENET), run_of(*student))
    assert isinstance(frozen.renormalize, nn.Identity)


def test_a_teacher_without_a_pipeline_is_taken_to_read_as_the_student(config: dict, checkpoint: str) -> None:
    frozen = teacher_with(config, checkpoint, preprocessor(**IMAGENET))
    frozen.match_preprocessing(preprocessor(**IMAGENET), run_of(RGB))
    assert isinstance(frozen.renormalize, nn.Identity)


def test_a_loader_that_reads_no_file_is_refused_beside_another(config: dict, checkpoint: str) -> None:
    frozen = teacher_with(config, checkpoint, preprocessor(**IMAGENET))
    frozen.config = run_of(STORE)
    with pytest.raises(ValueError, match=r'LoadImageFromStore cannot be found .*`teacher.check_preprocessing=False`'):
        frozen.match_preprocessing(preprocessor(**IMAGENET), run_of(LOAD))
    frozen.check_preprocessing = False
    frozen.match_preprocessing(preprocessor(**IMAGENET), run_of(LOAD))  # the way out works


def test_the_pipeline_is_that_of_the_inner_data_set_first() -> None:
    mixed = dict(type='MultiImageMixDataset', pipeline=[PACK],
                 dataset=dict(type='ConcatDataset', datasets=[dict(pipeline=[LOAD]), dict(pipeline=[RGB])]))
    assert pipeline_of(Config(dict(train_dataloader=dict(dataset=mixed)))) == [LOAD, PACK]
    assert pipeline_of(Config(dict(model=dict()))) is None
    assert pipeline_of(Config(dict(train_dataloader=None, test_dataloader=dict(dataset=dict(pipeline=[RGB]))))) == [RGB]
