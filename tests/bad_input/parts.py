"""Numbers out of range in losses, selectors, aligners and settings: none takes infinity, NaN or text for a number."""

from __future__ import annotations

from ckd_mmdet.alignment import build_alignment
from ckd_mmdet.lab.benchmark.steps import Setting
from ckd_mmdet.lab.compare.plan import Settings

from tests.bad_input.bench import Row

INF, NAN = float('inf'), float('nan')
NUMBERS = {'NaN': NAN, 'infinite': INF, 'text': 'x', 'negative': -1.0, 'none': None, 'a list': [1.0]}
ARGUMENTS = {  # by which a loss is built, and the values that it may take among those above
    ('CKDLoss', 'temperature'): (), ('KDLoss', 'temperature'): (), ('DKDLoss', 'alpha'): (),
    ('DKDLoss', 'temperature'): (), ('DISTLoss', 'beta'): (), ('DISTLoss', 'gamma'): (), ('CKDLoss', 'loss_weight'): (),
    ('CategoryContrastLoss', 'temperature'): ()}
TEXTS = {('CKDLoss', 'contrast'), ('CKDLoss', 'terms'), ('CKDLoss', 'anchors'), ('CategoryContrastLoss', 'target')}
SELECTORS = ('TeacherTopK', 'ForegroundPlus', 'Random', 'PerImageCap', 'PerLevelCap')


def loss(kind: str, **settings: object) -> Row:
    argument, = settings
    return Row('losses', lambda b: build_alignment('roi', dict(
        aligner=dict(type='RoIAligner'), losses=dict(loss_x=dict(type=kind, **settings)))), f'`{kind}`.*`{argument}`')


def selector(kind: str, k: object) -> Row:
    return Row('selectors', lambda b: build_alignment('roi', dict(
        aligner=dict(type='RoIAligner'), losses=dict(loss_x=dict(type='CKDLoss')), selector=dict(type=kind, k=k))),
        f'`{kind}` needs a whole `k` of at least 1, got')


def aligner(kind: str, words: str, **settings: object) -> Row:
    return Row('aligners', lambda b: build_alignment('x', dict(
        aligner=dict(type=kind, **settings), losses=dict(loss_x=dict(type='CKDLoss' if kind != 'NeckAligner' else
                                                                    'L2Loss')))), words)


def matrix(words: str, **settings: object) -> Row:
    return Row('compare', lambda b: Settings(**{**dict(student='s.py', teacher='t.py', methods=['ckd'], seeds=[0],
                                                       out=b.folder), **settings}), words)


def benchmark(words: str, **settings: object) -> Row:
    return Row('benchmark', lambda b: Setting('x.py', **settings), words)


LOSSES = {f'{kind}: {argument} is {name}': loss(kind, **{argument: value})
          for (kind, argument), fine in ARGUMENTS.items() for name, value in NUMBERS.items() if name not in fine}
WORDS = {f'{kind}: {argument} is unknown': loss(kind, **{argument: 'both ways'}) for kind, argument in sorted(TEXTS)}
K = {f'{kind}: k is {name}': selector(kind, value) for kind in SELECTORS
     for name, value in {'zero': 0, 'half': 2.5, 'text': 'x', 'infinite': INF}.items()}
REST = {
    'ReviewKDLoss: no channel': loss('ReviewKDLoss', mid_channels=0),
    'L2Loss: project in words': loss('L2Loss', project='yes'),
    'a balance of zero': loss('CKDLoss', loss_weight='balance:0'),
    'a balance of NaN': loss('CKDLoss', loss_weight='balance:nan'),
    'a balance of infinity': loss('CKDLoss', loss_weight='balance:inf'),
    'a balance without number': loss('CKDLoss', loss_weight='balance'),
    'a weight of two kinds': loss('CKDLoss', loss_weight=dict(value=1.0, balance=0.5)),
    'a weight with an unknown key': loss('CKDLoss', loss_weight=dict(value=1.0, ramp=3)),
    'a weight that warms up in words': loss('CKDLoss', loss_weight=dict(warm_up='slowly')),
    'a weight that decays backwards': loss('CKDLoss', loss_weight=dict(decay=(5, 3))),
    'a weight that stops at once': loss('CKDLoss', loss_weight=dict(stop=0)),
    'a preview below 1': loss('CKDLoss', preview=dict(base=0.5)),
    'a preview of infinity': loss('CKDLoss', preview=dict(base=INF)),
    'NeckAligner: no level': aligner('NeckAligner', 'at least one of `levels`', levels=[]),
    'NeckAligner: levels that do not match': aligner('NeckAligner', 'as many `levels`', levels=[0],
                                                     teacher_levels=[0, 1]),
    'QueryAligner: unknown layers': aligner('QueryAligner', "`layers` to be 'last' or 'all'", layers='first'),
    'compare: no seed': matrix('`seeds` needs numbers', seeds=[]),
    'compare: a negative seed': matrix('`seeds` needs numbers', seeds=[-1]),
    'compare: a seed above NumPy\'s': matrix('`seeds` needs numbers', seeds=[2 ** 32]),
    'compare: no epoch': matrix('`epochs` needs a positive number', epochs=0),
    'compare: no job': matrix('`jobs` needs a positive number', jobs=0),
    'compare: seeds by an option': matrix('take `--seeds`', options={'randomness.seed': 1}),
    'benchmark: no image': benchmark('`batch` of at least 1', batch=0),
    'benchmark: images of a pixel': benchmark('`size` of at least 32x32', size=(1, 1)),
    'benchmark: no round': benchmark('`rounds` of at least 1', rounds=0),
    'benchmark: unknown proposals': benchmark('`proposals` needs to be one of', proposals='best'),
}
ROWS = {**LOSSES, **WORDS, **K, **REST}
