from pathlib import Path

import pytest
import torch
from ckd_mmdet.teacher import FrozenTeacher
from mmdet.models import DetDataPreprocessor
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from torch import Tensor

from tests.small_runs import distilled
from tests.toys import saved_teacher, toy_batch, toy_config, toy_model

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
CAFFE = dict(mean=[103.53, 116.28, 123.675], std=[1., 1., 1.])


@pytest.fixture(scope='module')
def config() -> dict:
    return toy_config('faster_rcnn')


@pytest.fixture(scope='module')
def checkpoint(config: dict, tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_teacher(tmp_path_factory.mktemp('teacher'), config, classes=('cat', 'dog', 'cow'))


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


# its own eyes

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
    frozen.wear_glasses_of(ours)
    seen = seen_by(frozen, batch['inputs'], batch['data_samples'])
    assert torch.equal(batch['inputs'], before)  # the student's own tensor stays
    height, width = expected.shape[2:]  # its own padding may be narrower
    assert (seen[..., :height, :width] - expected).abs().max() < 1e-4
    assert (seen[0, :, 50:] == theirs.pad_value).all() and (seen[1, :, :, 45:] == theirs.pad_value).all()


def test_an_equal_preprocessing_passes_the_same_tensor_through(config: dict, checkpoint: str) -> None:
    frozen = teacher_with(config, checkpoint, preprocessor(**IMAGENET))
    frozen.wear_glasses_of(preprocessor(**IMAGENET))
    batch = preprocessor(**IMAGENET)(raw_images(), False)
    assert seen_by(frozen, batch['inputs'], batch['data_samples']) is batch['inputs']


def test_a_different_preprocessing_is_said(config: dict, checkpoint: str, capsys: pytest.CaptureFixture) -> None:
    MMLogger.get_instance('said', log_level='INFO')
    teacher_with(config, checkpoint, preprocessor(**CAFFE)).wear_glasses_of(preprocessor(**IMAGENET, bgr_to_rgb=True))
    said = ''.join(capsys.readouterr())
    assert 'renormalised' in said and '103.53, 116.28, 123.675' in said and 'swapped' in said


def test_the_answers_with_swapped_eyes_are_the_answers_with_its_own(config: dict, checkpoint: str) -> None:
    theirs, ours, raw = preprocessor(**CAFFE), preprocessor(**IMAGENET, bgr_to_rgb=True), raw_images()
    frozen = teacher_with(config, checkpoint, theirs)
    with torch.no_grad():
        expected = frozen.model.extract_feat(theirs({**raw}, False)['inputs'])
    frozen.wear_glasses_of(ours)
    batch = ours({**raw}, False)
    for ours_level, own_level in zip(frozen.extract_feat(batch['inputs'], batch['data_samples']), expected,
                                     strict=True):
        assert torch.allclose(ours_level, own_level, atol=1e-3, rtol=1e-3)
        assert not ours_level.requires_grad


# its weights

def test_the_digest_is_of_every_weight(config: dict, checkpoint: str) -> None:
    one, other = FrozenTeacher(config, checkpoint), FrozenTeacher(config, checkpoint)
    assert one.digest() == other.digest()
    other.model.roi_head.bbox_head.fc_cls.bias[0] += 1e-3
    assert one.digest() != other.digest()
    third = FrozenTeacher(config, checkpoint)
    third.model.backbone.bn1.running_mean[0] += 1
    assert third.digest() not in (one.digest(), other.digest())


def test_the_digest_survives_another_type_of_numbers_it_can_hold(config: dict, checkpoint: str) -> None:
    teacher = FrozenTeacher(config, checkpoint)
    teacher._apply(lambda tensor: tensor.bfloat16() if tensor.is_floating_point() else tensor)
    assert len(teacher.digest()) == 64  # NumPy has no bfloat16


def test_the_class_names_are_the_checkpoints(config: dict, checkpoint: str, tmp_path: Path) -> None:
    assert FrozenTeacher(config, checkpoint).classes == ('cat', 'dog', 'cow')
    loaded = torch.load(checkpoint, weights_only=False)
    for meta, classes in [(dict(CLASSES=['a', 'b', 'c']), ('a', 'b', 'c')), ({}, None)]:
        torch.save(dict(meta=meta, state_dict=loaded['state_dict']), tmp_path / 'other.pth')
        assert FrozenTeacher(config, tmp_path / 'other.pth').classes == classes
    named = dict(model=config, train_dataloader=dict(dataset=dict(metainfo=dict(classes=('x', 'y', 'z')))))
    assert FrozenTeacher(named, tmp_path / 'other.pth').classes == ('x', 'y', 'z')


def test_a_checkpoint_with_code_teaches_only_where_it_is_trusted(config: dict, checkpoint: str, tmp_path: Path) -> None:
    loaded = torch.load(checkpoint, weights_only=False)
    torch.save({**loaded, 'author': torch.nn.Linear(1, 1)}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='`teacher.checkpoint` needs a checkpoint without code.*`trusted=True`'):
        FrozenTeacher(config, tmp_path / 'x.pth')
    assert FrozenTeacher(config, tmp_path / 'x.pth', trusted=True).classes == ('cat', 'dog', 'cow')


def test_bare_weights_and_those_of_a_parallel_model_load(config: dict, checkpoint: str, tmp_path: Path) -> None:
    weights = torch.load(checkpoint, weights_only=False)['state_dict']
    expected = FrozenTeacher(config, checkpoint).digest()
    torch.save(weights, tmp_path / 'bare.pth')
    torch.save(dict(state_dict={f'module.{key}': value for key, value in weights.items()}), tmp_path / 'parallel.pth')
    assert FrozenTeacher(config, tmp_path / 'bare.pth').digest() == expected
    assert FrozenTeacher(config, tmp_path / 'parallel.pth').digest() == expected


def test_a_second_name_of_a_weight_is_no_misfit(config: dict, checkpoint: str, tmp_path: Path) -> None:
    """As in DDQ, which writes some weights of its head under its decoder's name too."""
    weights = torch.load(checkpoint, weights_only=False)['state_dict']
    key = 'roi_head.bbox_head.fc_cls.weight'
    torch.save(dict(state_dict={**weights, 'decoder.alias': weights[key]}), tmp_path / 'alias.pth')
    assert FrozenTeacher(config, tmp_path / 'alias.pth').digest() == FrozenTeacher(config, checkpoint).digest()
    torch.save(dict(state_dict={**weights, 'decoder.alias': weights[key].clone()}), tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r'no key missing, 1 key \(decoder.alias\) unexpected'):
        FrozenTeacher(config, tmp_path / 'other.pth')


def test_a_config_outside_the_model_scope_still_builds_mmdets_models(config: dict, checkpoint: str) -> None:
    whole = dict(model={key: value for key, value in config.items() if key != 'data_preprocessor'},
                 data_preprocessor=config['data_preprocessor'], default_scope='mmdet')
    assert FrozenTeacher(whole, checkpoint).model.data_preprocessor.mean.flatten()[0] == pytest.approx(123.675)


def test_a_distilled_student_teaches_in_its_turn(config: dict, checkpoint: str, tmp_path: Path) -> None:
    first = distilled(config, dict(config=config, checkpoint=checkpoint))
    student = toy_model(first, seed=5)
    weights = {**student.state_dict(), 'distiller.roi.projector.weight': torch.zeros(2)}  # a method's own
    torch.save(dict(state_dict=weights), tmp_path / 'epoch_1.pth')
    second = FrozenTeacher(first, tmp_path / 'epoch_1.pth')
    assert type(second.model).__name__ == 'FasterRCNN'
    assert second.digest() == FrozenTeacher(config, tmp_path / 'epoch_1.pth').digest()
    assert torch.equal(second.model.backbone.conv1.weight, student.backbone.conv1.weight)
