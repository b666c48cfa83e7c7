"""Pascal VOC to COCO: ``python to_coco.py BCCD data`` writes data/train.json, val.json and test.json."""

import sys
from pathlib import Path

import supervision as sv  # pip install supervision

voc, out = map(Path, sys.argv[1:])
everything = sv.DetectionDataset.from_pascal_voc(str(voc / 'JPEGImages'), str(voc / 'Annotations'))
path_of = {Path(path).stem: path for path in everything.image_paths}
for split in ('train', 'val', 'test'):
    paths = [path_of[name] for name in (voc / f'ImageSets/Main/{split}.txt').read_text().split()]
    part = sv.DetectionDataset(everything.classes, paths, {path: everything.annotations[path] for path in paths})
    images, boxes = part.as_coco(annotations_path=str(out / f'{split}.json'))
    print(f'{split}: {len(paths)} images, {sum(map(len, part.annotations.values()))} boxes of {everything.classes}')
