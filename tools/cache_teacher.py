"""Write what a teacher says of every training image into files, from which a student then trains without it.

The teacher runs once over the training set, for each view that the pipeline can give an image: flipped or not, of
fixed sizes. A run that was killed goes on when the same command is given again. The folder holds the cache, and
config.py, to train with: `python tools/train.py DIR/config.py`.
"""

import argparse
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import ckd_mmdet.compat  # noqa: F401
from ckd_mmdet.auto import distill_config
from ckd_mmdet.cached.build import Kept, build_cache, train_config
from ckd_mmdet.cached.foreign import build_from_predictions, distilled_by_file
from ckd_mmdet.compat.loading import trusting
from ckd_mmdet.config import open_config
from ckd_mmdet.data_files import check_data
from ckd_mmdet.files import write_whole
from ckd_mmdet.method_options import read_class_map
from ckd_mmdet.options import OptionsAction
from ckd_mmdet.versions import versions
from mmengine.config import Config
from mmengine.device import is_cuda_available
from tqdm import tqdm


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--version', action='version', version=versions())
    parser.add_argument('config', help='the config of a distilled student; or a plain one, with --teacher')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='the folder of the cache')
    parser.add_argument('--teacher', help='of a plain config: the config of the model that teaches')
    parser.add_argument('--teacher-checkpoint', help="its weights, a file or a URL (default: the model zoo's)")
    parser.add_argument('--method', default='ckd', help='of a plain config: how it will be distilled (default: ckd)')
    parser.add_argument('--class-map', nargs='+', metavar='OURS=THEIRS',
                        help="of a plain config: the teacher's class for each of yours; by default by name")
    parser.add_argument('--predictions', type=Path, metavar='FILE.json',
                        help='in the place of a teacher: COCO results for the training images, from any framework, '
                             'with `scores`, a probability for each class, or the one `score`')
    parser.add_argument('--k', type=int, default=Kept.k,
                        help=f'rows of a dense head of an image, the most confident ones (default: {Kept.k})')
    parser.add_argument('--boxes', type=int, default=Kept.boxes,
                        help=f'boxes of an image for a RoI head (default: {Kept.boxes})')
    parser.add_argument('--in-boxes', action=argparse.BooleanOptionalAction,
                        help='keep every row of a dense head whose anchor has its centre in a true box, too (default: '
                             'where selector or loss need labels)')
    parser.add_argument('--features', action=argparse.BooleanOptionalAction,
                        help="keep the inputs of a RoI head's last layer, too (default: where a loss needs them)")
    parser.add_argument('--workers', type=int, default=2, help='processes that load images (default: 2)')
    parser.add_argument('--device', default='cuda' if is_cuda_available() else 'cpu')
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='read checkpoints that could run code; only if you trust whoever made them')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, help='override settings, key=value')
    args = parser.parse_args()
    lonely = [f'--{name.replace("_", "-")}' for name in ('teacher_checkpoint', 'class_map') if getattr(args, name)]
    if lonely and not args.teacher:
        parser.error(f'{", ".join(lonely)} needs --teacher, the config of the detector that teaches')
    if args.predictions and args.teacher:
        parser.error('--predictions stands in the place of --teacher; give one of them')
    return args


def read_config(args: argparse.Namespace) -> Config:
    """The distilled config."""
    if args.predictions:
        return distilled_by_file(open_config(args.config, args.cfg_options, None, 'none'), args.method)
    if not args.teacher:
        return open_config(args.config, args.cfg_options, None, 'none')
    class_map = {'model.teacher.class_map': read_class_map(args.class_map)} if args.class_map else {}
    plain = open_config(args.config, None, None, 'none')
    return distill_config(plain, args.teacher, args.method, teacher_checkpoint=args.teacher_checkpoint,
                          options={**(args.cfg_options or {}), **class_map})


def shown(loaded: Iterator, total: int) -> Iterable:
    return tqdm(loaded, 'images', total, disable=None)  # quiet where nobody looks


def main() -> None:
    args = parse_args()
    warnings.filterwarnings('ignore')  # of other people's code
    cfg = read_config(args)
    check_data(cfg, ('train_dataloader',))
    kept = Kept(args.k, args.boxes, args.in_boxes, args.features)
    how = dict(workers=args.workers, say=lambda text: print(text, file=sys.stderr), progress=shown)
    with trusting(args.trust_checkpoint):
        if args.predictions:
            build_from_predictions(cfg, args.predictions, args.out, kept, **how)
        else:
            build_cache(cfg, args.out, kept, device=args.device, **how)
    write_whole(args.out / 'config.py', train_config(cfg, args.out).pretty_text)
    size = sum(path.stat().st_size for path in args.out.glob('*.safetensors'))
    print(f'{args.out}: {size / 2**20:.1f} MiB. Train with: python tools/train.py {args.out / "config.py"}')


if __name__ == '__main__':
    main()
