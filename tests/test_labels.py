"""The name of a labelled object in its file is the name of its label, for every data set type; what is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ckd_mmdet.annotations import names_in
from ckd_mmdet.config import as_names, class_names, object_names
from ckd_mmdet.labels import (
    check_config_names,
    check_label_names,
    check_same_labels,
    has_objects,
    label_names,
    leaves,
    set_true_names,
    settle_label_names,
)
from mmdet.datasets import CocoDataset, CocoPanopticDataset
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from PIL import Image

from tests.small_runs import run_config, student_config

BOXES = {'zero': (10, 10, 8, 8), 'three': (30, 10, 8, 8), 'seven': (10, 30, 8, 8)}
"""Box (x, y, w, h) of the only object of each name: what a file says is found again by its place."""
FILE_ORDER = ('zero', 'three', 'seven')
GIVEN = ('three', 'zero', 'seven')


def build(kind: str, scope: str = 'mmdet', **settings: Any) -> Any:
    if scope == 'mmdet' and 'ann_file' in settings:
        settings.setdefault('data_prefix', dict(img=''))
    if 'dataset' not in settings:
        settings['serialize_data'] = False  # else each waits a second for the garbage collector
    with DefaultScope.overwrite_default_scope(scope), DATASETS.switch_scope_and_registry(scope) as registry:
        return registry.build(dict(type=kind, **settings))


def write(path: Path, content: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def coco_json(names: tuple[str, ...] = FILE_ORDER, objects: tuple[str, ...] = FILE_ORDER, **more: Any) -> dict:
    """Ids go against the order of the file, so that no order can stand for another."""
    ids = {name: 50 - 7 * i for i, name in enumerate(names)}
    image = dict(id=1, file_name='patch0/1.jpg', width=64, height=64, frame_id=0, coco_url='1.jpg',
                 neg_category_ids=[], not_exhaustive_category_ids=[], categories=[{'id': 0, 'name': 'not these'}])
    boxes = [dict(id=i, image_id=1, category_id=ids[name], bbox=list(BOXES.get(name, (0, 0, 9, 9))), area=64, iscrowd=0,
                  instance_id=i, mot_conf=1, visibility=1, segmentation=[]) for i, name in enumerate(objects, start=1)]
    return dict(info={}, images=[image], annotations=boxes,
                categories=[dict(id=ids[name], name=name, isthing=int(name != 'sky')) for name in names], **more)


def coco(folder: Path, classes: Any = GIVEN, kind: str = 'CocoDataset', content: dict | None = None,
         **more: Any) -> Any:
    file = write(folder / 'train.json', content or coco_json())
    return build(kind, ann_file=file, metainfo=dict(classes=classes), **more)


def panoptic(folder: Path, names: tuple[str, ...] = (*FILE_ORDER, 'sky')) -> Any:
    content = coco_json(names)
    content['annotations'] = [dict(image_id=1, file_name='1.png', segments_info=content['annotations'])]
    return build('CocoPanopticDataset', ann_file=write(folder / 'panoptic.json', content),
                 metainfo=dict(classes=(*GIVEN, 'sky'), thing_classes=GIVEN))


def voc_xml(objects: tuple[str, ...] = FILE_ORDER) -> str:
    boxes = ''.join(
        f'<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>'
        f'<xmax>{x + w + 1}</xmax><ymax>{y + h + 1}</ymax></bndbox></object>'
        for name in objects for x, y, w, h in [BOXES[name.lower()]])
    return f'<annotation><folder>.</folder><size><width>64</width><height>64</height></size>{boxes}</annotation>'


def voc(folder: Path, classes: tuple[str, ...] = GIVEN, objects: tuple[str, ...] = FILE_ORDER) -> Any:
    write(folder / 'Annotations/1.xml', voc_xml(objects))
    return build('VOCDataset', data_root=str(folder / 'VOC2007'), ann_file=write(folder / 'train.txt', '1\n'),
                 data_prefix=dict(sub_data_root=str(folder)), metainfo=dict(classes=classes, palette=None))


def wider(folder: Path) -> Any:
    write(folder / 'Annotations/1.xml', voc_xml().replace('>11<', '>10<').replace('>31<', '>30<'))  # from 0
    return build('WIDERFaceDataset', ann_file=write(folder / 'train.txt', '1\n'), data_prefix=dict(img=str(folder)),
                 metainfo=dict(classes=GIVEN))


def crowdhuman(folder: Path, classes: tuple[str, ...] = GIVEN) -> Any:
    boxes = [dict(tag=name, fbox=box, hbox=box, vbox=box) for name, box in BOXES.items()]
    write(folder / 'id_hw_train.json', {'1': [64, 64]})
    write(folder / 'train.odgt', json.dumps(dict(ID='1', gtboxes=boxes)) + '\n')
    return build('CrowdHumanDataset', data_root=str(folder), ann_file='train.odgt', metainfo=dict(classes=classes))


def open_images(folder: Path) -> Any:
    labels = write(folder / 'labels.csv', ''.join(f'/m/{name[0]},{name}\n' for name in FILE_ORDER))
    rows = [f'1,xclick,/m/{name[0]},1,{x / 64},{(x + w) / 64},{y / 64},{(y + h) / 64},0,0,0,0,0'
            for name, (x, y, w, h) in BOXES.items()]
    annotations = write(folder / 'boxes.csv', '\n'.join(['header', *rows]) + '\n')
    (folder / 'metas.pkl').write_bytes(pickle.dumps([dict(filename='1.jpg', ori_shape=(64, 64))]))
    return build('OpenImagesDataset', ann_file=annotations, label_file=labels, meta_file=str(folder / 'metas.pkl'),
                 hierarchy_file=write(folder / 'tree.json', dict(LabelName='/m/all')), metainfo=dict(classes=GIVEN))


def open_images_challenge(folder: Path) -> Any:
    numbers = dict(zero=2, three=1, seven=3)
    labels = write(folder / 'labels.csv', ''.join(f'/m/{name[0]},{name},{n}\n' for name, n in numbers.items()))
    rows = [f'{numbers[name]} {x / 64} {y / 64} {(x + w) / 64} {(y + h) / 64} 0'
            for name, (x, y, w, h) in BOXES.items()]
    (folder / 'metas.pkl').write_bytes(pickle.dumps([dict(filename='1.jpg', ori_shape=(64, 64))]))
    np.save(folder / 'tree.npy', np.eye(4))
    annotations = write(folder / 'boxes.txt', '\n'.join(['1.jpg', '#', '3', *rows]))
    return build('OpenImagesChallengeDataset', ann_file=annotations, label_file=labels,
                 meta_file=str(folder / 'metas.pkl'), hierarchy_file=str(folder / 'tree.npy'))


def odvg(folder: Path) -> Any:
    boxes = [dict(bbox=[x, y, x + w, y + h], label=FILE_ORDER.index(name)) for name, (x, y, w, h) in BOXES.items()]
    line = dict(filename='1.jpg', height=64, width=64, detection=dict(instances=boxes))
    write(folder / 'train.jsonl', json.dumps(line))
    write(folder / 'map.json', {str(i): FILE_ORDER[i] for i in (2, 0, 1)})
    return build('ODVGDataset', data_root=str(folder), ann_file='train.jsonl', label_map_file='map.json',
                 return_classes=True)


def own_format(folder: Path) -> Any:
    """OpenMMLab's own: labels are numbers in the file, names beside them."""
    boxes = [dict(bbox=[x, y, x + w, y + h], bbox_label=FILE_ORDER.index(name), ignore_flag=0)
             for name, (x, y, w, h) in BOXES.items()]
    content = dict(metainfo=dict(classes=FILE_ORDER), data_list=[dict(img='1.jpg', instances=boxes)])
    return build('BaseDetDataset', ann_file=write(folder / 'own.json', content), metainfo=dict(classes=GIVEN))


def v3det(folder: Path) -> Any:
    file = write(folder / 'train.json', coco_json())
    write(folder / 'names.txt', '\n'.join(GIVEN))
    return build('V3DetDataset', data_root=str(folder), ann_file=file, label_file='names.txt')


class LVIS:
    """What mmdet takes of the package ``lvis``, which is not installed: read by hand, numbered as it does."""

    def __init__(self, path: str) -> None:
        content = json.loads(Path(path).read_text())
        self.cats = {category['id']: category for category in content['categories']}
        self.imgs = {image['id']: image for image in content['images']}
        self.anns = {box['id']: box for box in content['annotations']}
        self.cat_img_map = {category: [1] for category in self.cats}

    def get_cat_ids(self) -> list[int]:
        return list(self.cats)

    def get_img_ids(self) -> list[int]:
        return list(self.imgs)

    def load_imgs(self, ids: list[int]) -> list[dict]:
        return [self.imgs[i] for i in ids]

    def get_ann_ids(self, img_ids: list[int]) -> list[int]:
        return list(self.anns)

    def load_anns(self, ids: list[int]) -> list[dict]:
        return [self.anns[i] for i in ids]


@pytest.fixture
def lvis_package(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType('lvis')
    package.LVIS = LVIS
    monkeypatch.setitem(__import__('sys').modules, 'lvis', package)


def of_kind(kind: str, **more: Any) -> Callable[[Path], Any]:
    return lambda folder: coco(folder, kind=kind, **more)


TYPES = {
    **{kind: of_kind(kind) for kind in (
        'CocoDataset', 'ADE20KInstanceDataset', 'CityscapesDataset', 'DeepFashionDataset', 'iSAIDDataset',
        'Objects365V1Dataset', 'Objects365V2Dataset', 'LVISV05Dataset', 'LVISV1Dataset', 'LVISDataset',
        'BaseVideoDataset', 'MOTChallengeDataset')},
    'YouTubeVISDataset': of_kind('YouTubeVISDataset', dataset_version='2019'), 'V3DetDataset': v3det,
    'CocoPanopticDataset': panoptic, 'VOCDataset': voc, 'WIDERFaceDataset': wider, 'CrowdHumanDataset': crowdhuman,
    'OpenImagesDataset': open_images, 'OpenImagesChallengeDataset': open_images_challenge, 'ODVGDataset': odvg,
    'BaseDetDataset': own_format,
}


def objects(dataset: Any) -> Iterator[tuple[tuple[int, ...], int]]:
    """Upper left corner and label of each object."""
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        for image in info.get('images', [info]):
            for instance in image['instances']:
                yield tuple(round(x) for x in instance['bbox'][:2]), int(instance['bbox_label'])


@pytest.mark.usefixtures('lvis_package')
@pytest.mark.parametrize('kind', TYPES)
def test_an_object_has_in_its_file_the_name_of_its_label(kind: str, tmp_path: Path) -> None:
    dataset = TYPES[kind](tmp_path)
    by_place = {box[:2]: name for name, box in BOXES.items()}
    found = [(by_place[place], label) for place, label in objects(dataset)]
    assert {name for name, _ in found} == set(BOXES)
    assert [label_names(dataset)[label] for _, label in found] == [name for name, _ in found]


@pytest.mark.usefixtures('lvis_package')
@pytest.mark.parametrize('kind', TYPES)
def test_metainfo_has_the_true_names_once_they_are_set(kind: str, tmp_path: Path) -> None:
    dataset = TYPES[kind](tmp_path)
    checked = check_label_names(dataset)
    set_true_names(dataset, checked.names)
    assert tuple(dataset.metainfo['classes']) == checked.names == label_names(dataset)
    assert check_label_names(dataset).note is None  # all is said


def test_every_data_set_of_boxes_is_among_the_types() -> None:
    import mmdet.datasets as module
    known = {name for name in dir(module) if isinstance(getattr(module, name), type) and name.endswith('Dataset')}
    others = {
        'ConcatDataset', 'MultiImageMixDataset', 'XMLDataset',  # wrappers, and VOC's base
        # no classes
        'CocoCaptionDataset', 'Flickr30kDataset', 'MDETRStyleRefCocoDataset', 'RefCocoDataset', 'ReIDDataset',
        'BaseSegDataset', 'ADE20KSegDataset', 'CocoSegDataset',  # pixels
        'ADE20KPanopticDataset',  # COCO's, of other names
        'DODDataset', 'DSDLDetDataset', 'OneDLDataset',  # want a package or a service; they number by `metainfo` itself
    }
    assert known - others <= set(TYPES)


# classes in another order

def test_three_classes_in_another_order_than_the_files_are_told_in_its_order(tmp_path: Path) -> None:
    checked = check_label_names(coco(tmp_path))
    assert checked.names == checked.of_objects == FILE_ORDER and checked.missing == ()
    assert "annotations: 'zero', 'three', 'seven'; `metainfo.classes` says 'three', 'zero'" in checked.note


def test_classes_that_nobody_asks_for_are_no_fault(tmp_path: Path) -> None:
    checked = check_label_names(coco(tmp_path, ('seven', 'zero')))
    assert checked.names == ('zero', 'seven') and 'three' not in checked.note


def test_classes_in_the_order_of_the_file_are_not_worth_a_word(tmp_path: Path) -> None:
    assert check_label_names(coco(tmp_path, FILE_ORDER)).note is None


def test_colours_stay_with_their_names(tmp_path: Path) -> None:
    file = write(tmp_path / 'train.json', coco_json())
    dataset = build('CocoDataset', ann_file=file, metainfo=dict(classes=GIVEN, palette=['of 3', 'of 0', 'of 7']))
    set_true_names(dataset, FILE_ORDER)
    assert dataset.metainfo['palette'] == ['of 0', 'of 3', 'of 7']


def test_the_boxes_of_a_panoptic_data_set_are_of_things(tmp_path: Path) -> None:
    checked = check_label_names(panoptic(tmp_path))
    assert checked.names == (*FILE_ORDER, 'sky') and checked.of_objects == FILE_ORDER


def test_stuff_before_things_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'sky' is stuff and stands before things"):
        check_label_names(panoptic(tmp_path, ('sky', *FILE_ORDER)))


def test_a_prompt_in_another_order_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='is the prompt'):
        check_label_names(coco(tmp_path, return_classes=True))


# names that the annotations lack

@pytest.mark.parametrize(('make', 'near'), [(coco, 'ZERO'), (coco, 'zeroo'), (coco, ' zero'), (crowdhuman, 'ZERO'),
                                            (lambda folder, names: voc(folder, names), 'Zero')])
def test_a_name_that_the_annotations_lack_is_refused_with_its_near_miss(make: Callable, near: str,
                                                                      tmp_path: Path) -> None:
    dataset = make(tmp_path, ('three', near, 'seven'))
    with pytest.raises(ValueError, match=rf"no {near!r} \(they have 'zero'\).*`--allow-missing-classes`"):
        check_label_names(dataset)


def test_all_names_in_upper_case_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'THREE' \(they have 'three'\), no 'ZERO'"):
        check_label_names(coco(tmp_path, ('THREE', 'ZERO', 'SEVEN')))


def test_all_objects_of_a_pascal_voc_whose_names_differ_in_case_are_missed_aloud(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'three' \(they have 'Three'\)"):
        check_label_names(voc(tmp_path, GIVEN, ('Zero', 'Three', 'Seven')))


def test_an_object_of_pascal_voc_without_a_name_adds_none(tmp_path: Path) -> None:
    dataset = voc(tmp_path)
    write(tmp_path / 'Annotations/1.xml', voc_xml().replace('<name>three</name>', '<name/>'))
    assert names_in(dataset) == tuple(name for name in FILE_ORDER if name != 'three')


def test_a_name_far_from_all_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no 'giraffe'; .*Their names are 'zero', 'three', 'seven'"):
        check_label_names(coco(tmp_path, (*GIVEN, 'giraffe')))


@pytest.mark.parametrize('make', [coco, voc])
def test_a_missing_name_comes_last_where_it_is_allowed(make: Callable, tmp_path: Path) -> None:
    dataset = make(tmp_path, ('three', 'zero', 'nine') if make is coco else ('zero', 'three', 'nine'))
    checked = check_label_names(dataset, allow_missing=True)
    assert checked.names == ('zero', 'three', 'nine') and checked.missing == ('nine',)
    assert "has no object called 'nine'" in checked.note
    assert label_names(dataset)[:2] == ('zero', 'three')


def test_a_text_whose_parts_are_names_is_refused(tmp_path: Path) -> None:
    """pycocotools looks for each name within it."""
    with pytest.raises(ValueError, match=r"each of the 2 labels .*\('zero', 'three'\), and names 1"):
        check_label_names(coco(tmp_path, 'zero or three'))


def test_a_single_name_as_text_is_a_single_class(tmp_path: Path) -> None:
    dataset = coco(tmp_path, 'three')
    checked = check_label_names(dataset)
    set_true_names(dataset, checked.names)
    assert checked.names == ('three',) == dataset.metainfo['classes'] and checked.note is None


def test_two_categories_of_one_name_are_refused(tmp_path: Path) -> None:
    content = coco_json()
    content['categories'].append(dict(id=99, name='zero'))
    with pytest.raises(ValueError, match='each of the 4 labels'):
        check_label_names(coco(tmp_path, content=content))


@pytest.mark.usefixtures('lvis_package')
def test_some_classes_of_lvis_are_refused_since_it_numbers_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='each of the 3 labels'):
        check_label_names(coco(tmp_path, ('three', 'zero'), kind='LVISV1Dataset'))


@pytest.mark.usefixtures('lvis_package')
def test_lvis_may_spell_its_classes_otherwise(tmp_path: Path) -> None:
    assert check_label_names(coco(tmp_path, ('Zero', 'Three', 'Seven'), kind='LVISV1Dataset')).names == FILE_ORDER


def test_a_label_without_a_name_in_open_images_has_none(tmp_path: Path) -> None:
    dataset = open_images_challenge(tmp_path)
    dataset.label_id_mapping['/m/s'] = 4
    assert label_names(dataset) == ('three', 'zero', None, None, 'seven')
    set_true_names(dataset, label_names(dataset))
    assert as_names(dataset.metainfo['classes']) == ('three', 'zero', 'label 2', 'label 3', 'seven')


# before a data set is built

def config(classes: tuple[str, ...], file: str, kind: Any = 'CocoDataset') -> Config:
    folder, name = Path(file).parent, Path(file).name
    inner = dict(type=kind, data_root=str(folder), ann_file=name, metainfo=dict(classes=classes))
    return Config(dict(train_dataloader=dict(dataset=dict(type='RepeatDataset', times=2, dataset=inner))))


@pytest.mark.parametrize('kind', ['CocoDataset', 'mmdet.datasets.coco.CocoDataset', CocoDataset, 'YouTubeVISDataset'])
def test_a_name_that_the_file_of_a_config_lacks_is_refused(kind: Any, tmp_path: Path) -> None:
    """With ``filter_empty_gt`` no image would be left, and MMEngine would fail to concatenate none."""
    file = write(tmp_path / 'train.json', coco_json())
    with pytest.raises(ValueError, match=r"Dataset \(.*train.json\).*'ZERO' \(they have 'zero'\)"):
        check_config_names(config(('three', 'ZERO'), file, kind))
    check_config_names(config(('three', 'ZERO'), file, kind), allow_missing=True)
    check_config_names(config(('three', 'zero'), file, kind))


def test_a_config_whose_file_numbers_its_labels_otherwise_waits_for_the_data_set(tmp_path: Path) -> None:
    for kind, file in [('VOCDataset', 'train.txt'), ('LVISV1Dataset', 'train.json'), ('UnknownDataset', 'train.json'),
                       ('CocoDataset', 'not_there.json')]:
        if file != 'not_there.json':
            write(tmp_path / file, coco_json())
        check_config_names(config(('ZERO',), str(tmp_path / file), kind))


def test_a_message_about_many_names_stays_short(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no 'name 11' and 68 more;") as refused:
        check_label_names(coco(tmp_path, tuple(f'name {i}' for i in range(80))))
    assert len(str(refused.value)) < 800


# wrappers

def part(file: Path, order: tuple[str, ...]) -> dict:
    return dict(type='CocoDataset', ann_file=write(file, coco_json(order)), metainfo=dict(classes=GIVEN),
                data_prefix=dict(img=''), serialize_data=False)


def wrapped(inner: list[dict]) -> Any:
    balanced = [dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=one) for one in inner]
    return build('MultiImageMixDataset', pipeline=[], dataset=dict(
        type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=balanced)))


def test_wrappers_are_looked_into_and_told(tmp_path: Path) -> None:
    dataset = wrapped([part(tmp_path / '1.json', FILE_ORDER), part(tmp_path / '2.json', FILE_ORDER)])
    checked = check_label_names(dataset)
    set_true_names(dataset, checked.names)
    assert checked.names == FILE_ORDER == dataset.metainfo['classes'] == dataset.dataset.dataset.metainfo['classes']
    assert [leaf.metainfo['classes'] for leaf in leaves(dataset)] == [FILE_ORDER] * 2


def test_joined_data_sets_that_disagree_are_both_named(tmp_path: Path) -> None:
    orders = FILE_ORDER, ('zero', 'seven', 'three')
    inner = [part(tmp_path / f'{order[1]}.json', order) for order in orders]
    with pytest.raises(ValueError, match=r"label 1 is 'three' in .*three.json\) and 'seven' in .*seven.json\)"):
        check_label_names(wrapped(inner))


def test_a_data_set_that_waits_is_read_when_asked(tmp_path: Path) -> None:
    assert label_names(coco(tmp_path, lazy_init=True)) == FILE_ORDER


# the data that a model is tested on

@pytest.mark.parametrize(('classes', 'order', 'text'), [
    (GIVEN, ('three', 'zero', 'seven'), "label 0 is 'zero' for the model and 'three' in .*bring the `categories`"),
    (GIVEN[:2], FILE_ORDER, r'it has 2 .* and the model 3 .*metainfo.classes'),
    ((*GIVEN, 'nine'), (*FILE_ORDER, 'nine'), r'it has 4 .* and the model 3'), (GIVEN, FILE_ORDER, None)])
def test_a_validation_whose_labels_mean_something_else_is_refused(classes: tuple, order: tuple, text: str | None,
                                                                 tmp_path: Path) -> None:
    val = coco(tmp_path, classes, content=coco_json(order))
    if text is None:
        check_same_labels(FILE_ORDER, val, 'val_dataloader.dataset')
    else:
        with pytest.raises(ValueError, match=text):
            check_same_labels(FILE_ORDER, val, 'val_dataloader.dataset')


def runner_of(train: Any, val: Any) -> Any:
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=val), evaluator=SimpleNamespace())
    return SimpleNamespace(train_dataloader=SimpleNamespace(dataset=train), visualizer=SimpleNamespace(), val_loop=loop)


def test_a_run_whose_two_files_number_labels_differently_is_refused(tmp_path: Path) -> None:
    """Both data sets say the same in ``metainfo.classes``, and a perfect student would score as one that guesses."""
    train, val = coco(tmp_path / 'a'), coco(tmp_path / 'b', content=coco_json(GIVEN))
    with pytest.raises(ValueError, match=r"`val_dataloader.dataset` needs labels.*label 0 is 'zero' .*b/train.json"):
        settle_label_names(runner_of(train, val))


def test_a_run_that_is_validated_by_a_prompt_keeps_it(tmp_path: Path) -> None:
    val = coco(tmp_path / 'b', return_classes=True, content=coco_json(GIVEN))
    settle_label_names(runner_of(coco(tmp_path / 'a'), val))
    assert val.metainfo['classes'] == GIVEN


# objects

@pytest.mark.parametrize(('some', 'make'), [
    (True, coco), (False, lambda folder: coco(folder, content=coco_json(objects=()))),
    (False, lambda folder: coco(folder, ('ZERO',))), (True, voc), (False, lambda folder: voc(folder, ('ZERO',))),
    (False, lambda folder: coco(folder, content=crowds())), (True, of_kind('BaseVideoDataset')),
    (False, lambda folder: coco(folder, ('ZERO',), filter_cfg=dict(filter_empty_gt=True)))])
def test_data_without_an_object_are_told(some: bool, make: Callable, tmp_path: Path) -> None:
    assert has_objects(make(tmp_path)) is some


def crowds() -> dict:
    content = coco_json()
    for box in content['annotations']:
        box['iscrowd'] = 1
    return content


# MMPretrain

@pytest.fixture
def folders(tmp_path: Path) -> Path:
    pytest.importorskip('mmpretrain', reason='data sets of images are MMPretrain\'s')
    for name in FILE_ORDER:
        (tmp_path / name).mkdir()
        Image.new('RGB', (2, 2)).save(tmp_path / name / '1.png')
    return tmp_path


@pytest.mark.parametrize(('given', 'names'), [
    (None, ('seven', 'three', 'zero')), (GIVEN, ('seven', 'three', 'zero')), (('sieben', 'drei', 'null'),) * 2])
def test_an_image_lies_in_the_folder_of_its_label(given: tuple | None, names: tuple, folders: Path) -> None:
    dataset = build('CustomDataset', 'mmpretrain', data_prefix=str(folders),
                    metainfo=None if given is None else dict(classes=given))
    assert label_names(dataset) == check_label_names(dataset).names == names
    if names[0] != 'sieben':  # other words for the folders are taken on trust
        for index in range(3):
            info = dataset.get_data_info(index)
            assert Path(info['img_path']).parent.name == names[info['gt_label']]


def test_a_name_that_no_folder_has_is_refused_with_its_near_miss(folders: Path) -> None:
    dataset = build('CustomDataset', 'mmpretrain', data_prefix=str(folders),
                    metainfo=dict(classes=('sevn', 'three', 'zero')))
    with pytest.raises(ValueError, match=r"'sevn' \(they have 'seven'\)"):
        check_label_names(dataset)


def test_a_published_data_set_keeps_its_own_order(tmp_path: Path) -> None:
    pytest.importorskip('mmpretrain', reason='data sets of images are MMPretrain\'s')
    own = ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck')
    folder = tmp_path / 'cifar-10-batches-py'
    folder.mkdir()
    for name in [f'data_batch_{i}' for i in range(1, 6)] + ['test_batch']:
        content = dict(data=np.zeros((1, 3072), np.uint8), labels=[3])
        (folder / name).write_bytes(pickle.dumps(content))
    import mmpretrain.datasets as module
    kind = type('CIFAR10', (module.CIFAR10,), dict(_check_integrity=lambda self: True))  # not the published bytes
    dataset = kind(data_root=str(tmp_path), metainfo=dict(classes=own[::-1]), serialize_data=False)
    assert label_names(dataset)[dataset.get_data_info(0)['gt_label']] == 'cat'
    assert check_label_names(dataset).names == own


# names in configs

PERSON = dict(type='CocoDataset', metainfo=dict(classes='person'))


@pytest.mark.parametrize(('dataset', 'names'), [
    (PERSON, ('person',)), (dict(type='CocoDataset', metainfo=dict(classes=('sign'))), ('sign',)),
    (dict(type='CocoDataset', metainfo=dict(classes=['a', 'b'])), ('a', 'b')),
    (dict(type=CocoDataset, metainfo=dict(classes=('a',))), ('a',)),
    (dict(type='MultiImageMixDataset', dataset=dict(type='ConcatDataset', datasets=[PERSON, PERSON])), ('person',)),
    (dict(type=CocoPanopticDataset), CocoDataset.METAINFO['classes']),
    (dict(type='CocoPanopticDataset', metainfo=dict(classes=['sky', 'a'], thing_classes=['a'])), ('a',)),
    (dict(type='CocoPanopticDataset', metainfo=dict(classes=['cell', 'ring'])), ('cell', 'ring')),
    (dict(type='ImageNet', classes=['a', 'b']), ('a', 'b')),
    (dict(type='CocoDataset', metainfo=dict(classes=[])), None)])
def test_class_names_of_a_config_are_those_of_objects(dataset: dict, names: tuple | None) -> None:
    assert class_names(Config(dict(train_dataloader=dict(dataset=dataset)))) == names


def test_a_file_of_names_that_is_not_there_is_no_class() -> None:
    dataset = dict(type='CocoDataset', metainfo=dict(classes='data/names.txt'))
    with pytest.raises(ValueError, match=r"'data/names.txt' does not .*the name of a single class"):
        class_names(Config(dict(train_dataloader=dict(dataset=dataset))))


@pytest.mark.parametrize('odd', [10, [1, 'a'], {'a': 1}, {'a'}, [['a']], b'a', [None], True])
def test_what_is_no_name_is_refused(odd: Any) -> None:
    with pytest.raises(ValueError, match='`classes` needs names, as a list of text, got'):
        as_names(odd)


@pytest.mark.parametrize(('meta', 'names'), [
    ({}, None), (dict(classes='cell'), ('cell',)), (dict(classes=['a', 'b']), ('a', 'b')),
    (CocoPanopticDataset.METAINFO, CocoDataset.METAINFO['classes'])])
def test_a_checkpoint_names_its_classes_as_a_config_does(meta: dict, names: tuple | None) -> None:
    assert object_names(meta) == names


# a whole run

def test_a_metric_gives_each_class_its_own_score(tmp_path: Path) -> None:
    """MMDetection's metrics write the names of ``dataset_meta`` beside scores that they count by label."""
    dataset = coco(tmp_path)
    scores = []
    for _ in range(2):
        metric = CocoMetric(classwise=True, outfile_prefix=str(tmp_path / 'out'))
        metric.dataset_meta = dataset.metainfo
        info = dataset.get_data_info(0)
        zero = torch.tensor([one['bbox'] for one in info['instances'] if one['bbox'][:2] == [10, 10]]).float()
        predicted = dict(bboxes=zero, scores=torch.ones(1), labels=torch.tensor([label_names(dataset).index('zero')]))
        metric.process({}, [dict(img_id=1, ori_shape=(64, 64), pred_instances=predicted, instances=info['instances'])])
        found = metric.evaluate(1)
        scores.append({name: found[f'coco/{name}_precision'] for name in FILE_ORDER})
        set_true_names(dataset, FILE_ORDER)
    assert scores == [dict(three=1, zero=0, seven=0), dict(zero=1, three=0, seven=0)]


def test_a_run_and_its_checkpoints_have_the_true_order(digits: Path, tmp_path: Path) -> None:
    cfg = run_config(student_config(), digits, tmp_path, epochs=1)
    backwards = tuple(cfg.train_dataloader.dataset.metainfo.classes)[::-1]
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.update(metainfo=dict(classes=backwards), serialize_data=False)
    runner = Runner.from_cfg(cfg)
    runner._train_loop, runner._val_loop = (runner.build_train_loop(runner._train_loop),
                                            runner.build_val_loop(runner._val_loop))
    found = settle_label_names(runner)
    assert found.names == backwards[::-1] != backwards
    metric, = runner.val_loop.evaluator.metrics
    for meta in (runner.train_dataloader.dataset.metainfo, runner.visualizer.dataset_meta,
                 runner.val_loop.evaluator.dataset_meta, metric.dataset_meta):
        assert meta['classes'] == found.names
    runner.save_checkpoint(str(tmp_path), 'saved.pth', save_optimizer=False, save_param_scheduler=False)
    assert torch.load(tmp_path / 'saved.pth', weights_only=False)['meta']['dataset_meta']['classes'] == found.names


def test_a_config_as_the_builder_sees_it_is_not_touched(tmp_path: Path) -> None:
    classes = Config(dict(classes=list(GIVEN)))
    dataset = build('CocoDataset', ann_file=write(tmp_path / 'train.json', coco_json()), metainfo=classes)
    set_true_names(dataset, check_label_names(dataset).names)
    assert classes.classes == list(GIVEN)
