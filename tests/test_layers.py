"""Who may import whom: the losses know nothing of detectors, and the aligners nothing of losses."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import ckd_mmdet
import pytest

PACKAGE = Path(ckd_mmdet.__file__).parent
TENSORS = {'torch'}
ALLOWED = {  # beside the standard library and the part's own folder
    '__init__': set(),
    'functional': TENSORS,
    'rows': TENSORS,
    'boxes': TENSORS | {'ckd_mmdet.functional'},
    'masks': TENSORS,
    'recipes': set(),
    'classes': TENSORS | {'ckd_mmdet.text'},
    'samples': TENSORS | {'ckd_mmdet.rows', 'ckd_mmdet.boxes', 'ckd_mmdet.masks'},
    'taps': TENSORS,
    'files': set(),
    'text': set(),
    'versions': {'ckd_mmdet.__version__'},
    'seeding': TENSORS | {'numpy', 'mmengine'},
    'registry': {'ckd_mmdet.compat', 'mmengine.registry'},
    'selectors': TENSORS | {'ckd_mmdet.samples', 'ckd_mmdet.registry'},
    'losses': TENSORS | {'ckd_mmdet.samples', 'ckd_mmdet.functional', 'ckd_mmdet.registry'},
    'aligners': TENSORS | {'ckd_mmdet.compat', 'ckd_mmdet.samples', 'ckd_mmdet.rows', 'ckd_mmdet.boxes',
                           'ckd_mmdet.masks', 'ckd_mmdet.functional', 'ckd_mmdet.classes', 'ckd_mmdet.taps',
                           'ckd_mmdet.registry', 'mmengine.config', 'mmengine.model', 'mmengine.structures', 'mmdet'},
    # the plugin: the only part that may import mmpretrain
    'classification': TENSORS | {'torchvision', 'ckd_mmdet.registry', 'ckd_mmdet.samples', 'ckd_mmdet.taps',
                                 'ckd_mmdet.rows', 'ckd_mmdet.classes', 'ckd_mmdet.aligners', 'mmengine', 'mmpretrain',
                                 'numpy', 'PIL'},
}
# all of the above, and mmengine
ABOVE = {'alignment', 'annotations', 'auto', 'balance', 'checkpoints', 'choice', 'config', 'config_classes',
         'cached', 'data_check', 'data_files', 'fit_checkpoint', 'image_check', 'lock', 'missed_validation', 'options',
         'work_dir', 'inheritance',
         'distillation', 'distilled', 'explanation', 'export', 'fit', 'folding', 'hook', 'joining', 'judgement',
         'labels', 'loading', 'log_groups', 'method_options', 'pairing', 'preprocessing', 'ranks', 'saving', 'speed',
         'student_export', 'teacher'}
LIBRARY = {f'ckd_mmdet.{part}' for part in ABOVE | set(ALLOWED) | {'compat', '__version__'}}
ALLOWED |= {part: TENSORS | LIBRARY | {'mmengine', 'mmdet.structures', 'mmpretrain.structures', 'numpy', 'PIL'}
            for part in ABOVE}
ALLOWED['image_check'] |= {'mmcv'}
ALLOWED['cached'] |= {'safetensors'}
ALLOWED['method_options'] |= {'yaml'}
FREE = {'compat',  # other people's versions
        'lab',  # what measures and shows: nothing of the core imports it
        '__main__'}


def imports(file: Path) -> Iterator[str]:
    """Absolute names of the modules that a file imports, within functions too; ``a.b`` for ``from a import b``."""
    package = ['ckd_mmdet', *file.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            yield from ('.'.join([*base, *filter(None, [node.module]), name.name]) for name in node.names)


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix('').parts[0]


def breaches(file: Path) -> list[str]:
    allowed = ALLOWED[part_of(file)] | {f'ckd_mmdet.{part_of(file)}'}
    return [name for name in imports(file) if name.split('.')[0] not in sys.stdlib_module_names
            and not any(f'{name}.'.startswith(f'{whole}.') for whole in allowed)]


# .mim holds configs and tools, by OpenMMLab's convention
FILES = [file for file in sorted(PACKAGE.rglob('*.py')) if part_of(file) not in FREE | {'.mim'}]


@pytest.mark.parametrize('file', FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_part_imports_only_what_its_layer_may(file: Path) -> None:
    assert breaches(file) == []


def test_the_core_does_not_import_the_lab() -> None:
    core = [file for file in sorted(PACKAGE.rglob('*.py')) if part_of(file) not in {'lab', '.mim'}]
    assert len(core) > 50
    assert [(file.name, name) for file in core for name in imports(file)
            if f'{name}.'.startswith('ckd_mmdet.lab.')] == []


def test_every_part_has_a_layer() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == '.py' or (path / '__init__.py').exists()}
    assert parts == set(ALLOWED) | FREE


def test_importing_the_package_imports_nothing() -> None:
    assert list(imports(PACKAGE / '__init__.py')) == []
