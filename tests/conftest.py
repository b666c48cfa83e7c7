import itertools
import os
import random
import sys
import warnings

# mmdet's modules, which the tests import, need this first.
import ckd_mmdet.compat  # noqa: F401
import pytest
import torch
import yapf  # noqa: F401  fills its cache before the workers start: two that fill it at once can read half of it

_scopes = itertools.count()

# Fixtures import what they need: mmdet's import takes seconds, and the pure tests do without.


def pytest_collection_modifyitems(items):
    """Skip what asks for float16 under autocast on CPU where torch has bfloat16 alone there, as torch 2.1 does."""
    _shuffle(items, os.environ.get('SHUFFLE'))
    if _autocasts_to_float16():
        return
    for item in items:
        params = item.callspec.params if hasattr(item, 'callspec') else {}
        if torch.float16 in params.values() and 'autocast' in item.function.__code__.co_names:
            item.add_marker(pytest.mark.skip(reason="this torch's autocast on CPU has no float16"))


def _shuffle(items, seed):
    """Files in a random order, and the tests within each; the same in every worker. ``make test SHUFFLE=1``."""
    if not seed:
        return
    draw = random.Random(int(seed))
    files = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    shuffled = list(files.values())
    draw.shuffle(shuffled)
    for tests in shuffled:
        draw.shuffle(tests)
    items[:] = itertools.chain.from_iterable(shuffled)


def _autocasts_to_float16():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that autocast is switched off instead
        try:
            with torch.autocast('cpu', dtype=torch.float16):
                return torch.mm(torch.ones(1, 1), torch.ones(1, 1)).dtype == torch.float16
        except RuntimeError:  # torch 2.1 refuses it
            return False


@pytest.fixture(scope='session', autouse=True)
def configs_are_not_laid_out():
    """A Runner writes its config through yapf: seconds each, for a layout that no test reads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **options: (text, False))
        yield


@pytest.fixture(scope='module', autouse=True)
def scope(request):
    """Where MMEngine looks for names without a scope: in mmpretrain for the tests of classifiers, else in mmdet."""
    of_classifiers = 'classification' in request.path.parts or request.path.name == 'test_digits.py'
    name = 'mmpretrain' if of_classifiers else 'mmdet'
    _set_scope(name)
    yield name
    _set_scope('mmdet')


@pytest.fixture(autouse=True)
def scope_again(scope):
    """A Runner leaves its own, which would be that of the tests after it."""
    yield
    _set_scope(scope)


@pytest.fixture(autouse=True)
def no_run_before():
    """What a Runner writes down, such as its epoch, is not read by the tests after it."""
    logging = sys.modules.get('mmengine.logging')
    if logging is not None:
        logging.MessageHub.get_instance(f'test-{next(_scopes)}')  # the last one made is the current one


def _set_scope(name):
    scopes = sys.modules.get('mmengine.registry.default_scope')
    if scopes is not None:  # the pure tests do without
        current = scopes.DefaultScope.get_current_instance()
        if current is None or current.scope_name != name:
            scopes.DefaultScope.get_instance(f'{name}-{next(_scopes)}', scope_name=name)


@pytest.fixture(scope='session')
def digits(tmp_path_factory):
    """A folder with 16 training and 4 validation scenes of 64x64."""
    from ckd_mmdet.lab.datasets.digit_scenes import make_digit_scenes

    return make_digit_scenes(tmp_path_factory.mktemp('digits') / 'set', train=16, val=4, size=64)


@pytest.fixture(scope='session')
def digit_teacher(tmp_path_factory):
    """Config and random weights of a toy teacher for the digits."""
    from ckd_mmdet.lab.datasets.digit_sources import CLASSES

    from tests.small_runs import student_config
    from tests.toys import saved_teacher

    config = student_config()
    return dict(config=config, checkpoint=saved_teacher(tmp_path_factory.mktemp('teacher'), config, classes=CLASSES))
