"""Teachers, students and alignments that do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from tests.bad_input.bench import Row
from tests.small_runs import student_config
from tests.toys import saved_teacher, toy_config, toy_model


def other_weights(config: dict) -> Callable[[Path], None]:
    return lambda path: torch.save(dict(state_dict=toy_model(config).state_dict()), path)


def cut_off(taught: dict) -> Callable[[Path], int]:
    whole = Path(taught['checkpoint']).read_bytes()
    return lambda path: path.write_bytes(whole[:len(whole) // 2])


def preprocessed(**settings: object) -> dict:
    config = student_config()
    config.data_preprocessor.update(settings)
    return config


def unpreprocessed() -> dict:
    config = student_config()
    config.data_preprocessor = dict(type='BaseDataPreprocessor')
    return config


def retinanet_in(folder: Path) -> dict:
    config = toy_config('retinanet', 10)
    return dict(config=config, checkpoint=saved_teacher(folder, config))


def losses(**cfg: object) -> dict:
    return dict(losses=dict(loss_ckd=dict(cfg)))


RENAMED = ('zero', 'uno', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
SPANISH = ('cero', 'uno', 'dos', 'tres', 'cuatro', 'cinco', 'seis', 'siete', 'ocho', 'nueve')
NO_ADDRESS = 'mmdet::faster_rcnn/faster-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco.py'

BUILT = {  # what the user does, and what the message says: argument, wish, fact, way out
    # the teacher's checkpoint
    'missing checkpoint': (lambda b: b.build(teacher=dict(checkpoint='gone.pth')),
                           r"`teacher.checkpoint` needs a readable checkpoint, 'gone.pth' is not .FileNotFoundError: "),
    'checkpoint is text': (lambda b: b.with_checkpoint(lambda path: path.write_text('<html>404</html>')),
                           r'`teacher.checkpoint` needs a readable checkpoint, .*teacher.pth. is not'),
    'checkpoint is empty': (lambda b: b.with_checkpoint(lambda path: path.write_bytes(b'')),
                            r'`teacher.checkpoint` needs a readable checkpoint, .*teacher.pth. is not'),
    'checkpoint is cut off': (lambda b: b.with_checkpoint(cut_off(b.taught)),
                              r'`teacher.checkpoint` needs a readable checkpoint, .*teacher.pth. is not'),
    'checkpoint is a folder': (lambda b: b.build(teacher=dict(checkpoint=str(b.folder))),
                               r'`teacher.checkpoint` needs a readable checkpoint'),
    'checkpoint holds a list': (lambda b: b.with_checkpoint(lambda path: torch.save([1, 2], path)),
                                r'`teacher.checkpoint` needs a checkpoint with a state dict, .* holds a list'),
    'state dict is a list': (lambda b: b.with_checkpoint(lambda path: torch.save(dict(state_dict=[1]), path)),
                             r'`teacher.checkpoint` needs a checkpoint with a state dict, .* holds a list'),
    'weights are numbers': (lambda b: b.with_checkpoint(
        lambda path: torch.save(dict(state_dict={'backbone.conv1.weight': 3}), path)),
        r'`teacher.checkpoint` needs a checkpoint .* whose values are tensors, .* has int under .backbone.conv1.w'),
    'no weights at all': (lambda b: b.with_checkpoint(lambda path: torch.save(dict(optimizer={}), path)),
                          r'`teacher.checkpoint` needs a checkpoint .* tensors, .* has dict under .optimizer.'),
    'another architecture': (lambda b: b.with_checkpoint(other_weights(toy_config('retinanet', 10))),
                             r'`teacher.checkpoint` needs the weights of the given config, .*teacher.pth. does not fit '
                             r'it: .* size mismatch for neck.* \.\.\. Give the checkpoint that was trained with this'),
    'missing keys only': (lambda b: b.with_checkpoint(lambda path: torch.save(
        {key: value for key, value in toy_model(student_config()).state_dict().items() if 'fc_cls' not in key}, path)),
        r'2 keys \(roi_head.bbox_head.fc_cls.weight, roi_head.bbox_head.fc_cls.bias\) missing, no key unexpected'),
    'unexpected keys only': (lambda b: b.with_checkpoint(lambda path: torch.save(
        {**toy_model(student_config()).state_dict(), 'mask_head.weight': torch.ones(1)}, path)),
        r'no key missing, 1 key \(mask_head.weight\) unexpected'),
    'other shapes': (lambda b: b.with_checkpoint(other_weights(toy_config('faster_rcnn', num_classes=4))),
                     r'does not fit it: .*size mismatch for roi_head.bbox_head.fc_cls.weight'),
    'no checkpoint known': (lambda b: b.build(teacher=dict(config=NO_ADDRESS, checkpoint=None)),
                            r'`teacher.checkpoint` is missing, and no address .* known for mmdet::.*lsj-200e_coco.py; '
                            r'give the path or address'),
    'no checkpoint given': (lambda b: b.build(teacher=dict(checkpoint=None)),
                            r'`teacher.checkpoint` is missing, and no address of a checkpoint is known for a dict'),

    # the teacher's config
    'an unknown key of the teacher': (lambda b: b.build(teacher=dict(weights='r101.pth')),
                                      r"`teacher`: `FrozenTeacher` got an unexpected keyword argument 'weights'; it "
                                      r'takes config, checkpoint, class_map, check_accuracy'),
    'missing config': (lambda b: b.build(teacher=dict(config='gone.py')),
                       r"`teacher.config` needs a readable config, got 'gone.py'"),
    'config not in mmdet': (lambda b: b.build(teacher=dict(config='mmdet::faster_rcnn/gone.py')),
                            r"`teacher.config` needs a readable config, got 'mmdet::faster_rcnn/gone.py'"),
    'config without model': (lambda b: b.build(teacher=dict(config='mmdet::_base_/schedules/schedule_1x.py')),
                             r'`teacher.config` needs a config with a `model`, .*schedule_1x.py. has none'),

    # teacher and student
    'class names differ': (lambda b: b.with_classes(known=RENAMED),
                           r"knows other classes than the data set: 10 against 10; 1: 'one' in the data, 'uno' for the "
                           r"teacher. Pair them with `teacher.class_map='name'`, or give a teacher trained on"),
    'number of classes differs': (lambda b: b.build(student=toy_config('faster_rcnn', num_classes=4)),
                                  r'`alignments.roi` needs as many classes in the teacher \(10\) as in the student '
                                  r"\(4\); pair them with `teacher.class_map='name'`"),
    'class map of unknown classes': (lambda b: b.with_class_map(dict(three='drei')),
                                     r"`teacher.class_map` names 'drei', which the teacher does not know; it knows "
                                     r"'zero', 'one', 'two', "),
    'class map from unknown classes': (lambda b: b.with_class_map(dict(nine='nine')),
                                       r"`teacher.class_map` names 'nine', which the student does not know; it knows "
                                       r"'zero', 'three', 'seven'"),
    'no class in common': (lambda b: b.with_class_map('name', known=SPANISH),
                           r"`teacher.class_map='name'` finds no class that student and teacher share. The student "
                           r"knows 'zero', 'three', 'seven'; the teacher knows 'cero', .*Give a dict"),
    'class map for another number of classes': (
        lambda b: b.with_classes(('zero', 'three'), class_map='name'),
        r'`alignments.roi`: the student scores 10 classes, and 2 have names .*zero.*three.*; set `num_classes`'),
    'padding differs': (lambda b: b.build(student=preprocessed(pad_size_divisor=24)),
                        r"needs inputs padded to a multiple of 32, the student's are padded to 24; set the student's "
                        r'padding .* `--cfg-options data_preprocessor.pad_size_divisor=96`'),
    'unknown preprocessing': (lambda b: b.build(student=unpreprocessed()),
                              r'needs models with an `ImgDataPreprocessor`, a `DetDataPreprocessor` or a '
                              r'`ClsDataPreprocessor`, got BaseDataPreprocessor'),
    'student has no RoI head': (lambda b: b.build(student=toy_config('retinanet', 10)),
                                r'`RoIAligner` needs a student with `roi_head.bbox_head`, got a RetinaNet; it serves '
                                r'two-stage'),
    'teacher has no RoI head': (lambda b: b.build(teacher=retinanet_in(b.folder)),
                                r'`RoIAligner` needs a teacher with `roi_head.bbox_head`, got a RetinaNet'),
    'a stage too many': (lambda b: b.build(roi=dict(aligner=dict(type='RoIAligner', stage=1))),
                         r'got `stage=1`, but neither model has a RoI head with stages; leave `stage` out'),
    'a stage is missing': (lambda b: b.build(student=toy_config('cascade_rcnn', 10)),
                           r"needs a `stage` from 0 to 2 for the stages of the student's CascadeRoIHead, got None"),

    # the alignments
    'unknown aligner': (lambda b: b.build(roi=dict(aligner=dict(type='RoiAligner'))),
                        r"`alignments.roi.aligner` needs the name of a registered Aligner, got 'RoiAligner'; ckd_mmdet "
                        r'has .*RoIAligner'),
    'unknown loss': (lambda b: b.build(roi=losses(type='CDKLoss')),
                     r"`alignments.roi.losses.loss_ckd` needs the name of a registered DistillLoss, got 'CDKLoss'; "
                     r'ckd_mmdet has .*CKDLoss'),
    'unknown selector': (lambda b: b.build(roi=dict(selector=dict(type='Fg'))),
                         r"`alignments.roi.selector` needs the name of a registered Selector, got 'Fg'; .* Foreground"),
    'a loss as an aligner': (lambda b: b.build(roi=dict(aligner=dict(type='ckd_mmdet.CKDLoss'))),
                             r'`alignments.roi.aligner` needs the name of a registered Aligner'),
    "another package's loss": (lambda b: b.build(roi=losses(type='mmdet.L1Loss')),
                               r"needs the name of a registered DistillLoss, got 'mmdet.L1Loss'"),
    'a part without type': (lambda b: b.build(roi=losses(temperature=1.0)),
                            r'`alignments.roi.losses.loss_ckd` needs a dict with the key `type`'),
    'an unknown argument': (lambda b: b.build(roi=losses(type='CKDLoss', tau=2.0)),
                            r"`alignments.roi.losses.loss_ckd`: `CKDLoss` got an unexpected keyword argument 'tau'; it "
                            r'takes temperature, contrast, '),
    'a bad temperature': (lambda b: b.build(roi=losses(type='CKDLoss', temperature=0.0)), r'temperature'),
    'a negative weight': (lambda b: b.build(roi=losses(type='KDLoss', loss_weight=-1.0)),
                          r'`KDLoss` needs a finite `loss_weight` of at least 0, got -1.0'),
    'loss needs what is not there': (lambda b: b.build(roi=losses(type='NeedsMaps')),
                                     r"`alignments.roi` pairs a NeedsMaps, which requires \['maps'\], with a "
                                     r'RoIAligner, which provides .* only; take another loss'),
    'distributions of RoIs': (lambda b: b.build(roi=losses(type='LDLoss')),
                              r"pairs a LDLoss, which requires \['distributions'\], with a RoIAligner, which "
                              r'provides .* only \(a RoI head regresses plain numbers, which BoxLoss compares\); take'),
    'boxes by an unknown weight': (lambda b: b.build(roi=losses(type='BoxLoss', weight_by='iou')),
                                   r'`BoxLoss` needs `weight_by` to be one of \(None, .gap., .*, got .iou.'),
    'loss key without loss': (lambda b: b.build(roi=dict(losses=dict(ckd=dict(type='CKDLoss')))),
                              r"`alignments.roi.losses` needs names that contain `loss` .*got 'ckd', call it 'loss_"),
    'loss key with a dot': (lambda b: b.build(roi=dict(losses={'loss.ckd': dict(type='CKDLoss')})),
                            r"got 'loss.ckd', call it 'loss_loss_ckd'"),
    'no loss': (lambda b: b.build(roi=dict(losses={})), r'`alignments.roi.losses` needs at least one loss, by name'),
    'alignment name with loss': (lambda b: b.build(alignments=dict(roi_loss=dict(
        aligner=dict(type='RoIAligner'), losses=dict(loss_ckd=dict(type='CKDLoss'))))),
        r"`alignments` needs names without `loss` .*got 'roi_loss'"),
    'alignment without aligner': (lambda b: b.build(alignments=dict(roi=dict(losses={}))),
                                  r"`alignments.roi` needs the keys `aligner` and `losses`, .* got \['losses'\]"),
    'alignment with a typo': (lambda b: b.build(roi=dict(select=dict(type='All'))),
                              r"may have `selector` and `teacher`; got \['aligner', 'losses', 'select'\]"),

    # the data
    'missing data root': (lambda b: b.train_tool('train_dataloader.dataset.data_root=gone'),
                          r"`train_dataloader.dataset.data_root` needs a folder that exists, 'gone' does not .*put the "
                          r'data there'),
    'missing data root of val': (lambda b: b.train_tool('val_dataloader.dataset.data_root=gone'),
                                 r'`val_dataloader.dataset.data_root` needs a folder that exists'),
    'missing annotations': (lambda b: b.train_tool('train_dataloader.dataset.ann_file=gone.json'),
                            r'`train_dataloader.dataset.ann_file` needs a file that exists, .*gone.json. does not'),
    'missing images': (lambda b: b.train_tool('train_dataloader.dataset.data_prefix.img=gone/'),
                       r'`train_dataloader.dataset.data_prefix.img` needs a folder that exists, .*gone/. does not'),
    'empty annotations': (lambda b: b.with_annotations(''),
                          r'`train_dataloader.dataset.ann_file` needs a COCO JSON, .*train.json. is none: it is empty'),
    'annotations cut off': (lambda b: b.with_annotations(b.coco()[:-100]),
                            r'needs a COCO JSON, .* it is no JSON object, or it is cut off'),
    'annotations cut off behind a bracket': (lambda b: b.with_annotations(b.coco()[:b.coco().rindex('}, {') + 1]),
                                             r'needs a COCO JSON, .*train.json. is none'),
    'annotations are no JSON': (lambda b: b.with_annotations('<annotation><object/></annotation>'),
                                r'needs a COCO JSON, .* it is no JSON object'),
    'annotations are a list': (lambda b: b.with_annotations(json.dumps([dict(image_id=1)])),
                               r'needs a COCO JSON, .* it is no JSON object'),
    'annotations are other JSON': (lambda b: b.with_annotations(json.dumps(dict(images=[], shapes=[]))),
                                   r'needs a COCO JSON, .* it has no annotations and no categories'),

    # the run
    'NaN logits': (lambda b: b.with_logits(float('nan')),
                   r'the teacher \(the given config, .*teacher_1.pth\) gave NaN or infinite logits or features'),
    'infinite logits': (lambda b: b.with_logits(float('inf')), r'gave NaN or infinite logits'),
    'export of no checkpoint': (lambda b: b.export({}),
                                r'`checkpoint` needs a checkpoint .*empty.pth. holds no weights'),
    'export of bare weights': (lambda b: b.export({'weight': torch.zeros(1)}),
                               r'`checkpoint` needs a training checkpoint with a `state_dict`, .*empty.pth has none'),
}

ROWS = {name: Row('Distiller', *row) for name, row in BUILT.items()}
