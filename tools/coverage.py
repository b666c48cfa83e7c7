"""Try every family of mmdet's configs with ckd_mmdet, and write the table of supported detectors."""

if __name__ != '__main__':  # numba asks for a package of this name, and finds this file beside any tool that it runs in
    raise ImportError('tools/coverage.py is a command, not the package `coverage`')

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

os.environ.update(OMP_NUM_THREADS='1', MKL_NUM_THREADS='1')  # before torch is imported
# this file would hide the package `coverage` from those who look for it, numba for one
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]

from ckd_mmdet.files import check_writable, write_whole  # noqa: E402
from ckd_mmdet.lab.coverage import LIMIT, Row, families, markdown, run_families, summary  # noqa: E402
from ckd_mmdet.versions import versions  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--version', action='version', version=versions())
    parser.add_argument('--families', nargs='+', metavar='NAME', help="folders of mmdet's configs (default: all)")
    parser.add_argument('--jobs', type=int, default=2, help='processes at a time (default: 2)')
    parser.add_argument('--limit', type=float, default=LIMIT, help=f'seconds a family may take (default: {LIMIT:g})')
    parser.add_argument('--out', type=Path, help='(default: docs/supported.md of all families, else none)')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')  # of other people's code
    names = args.families or families()
    done, started = 0, time.monotonic()

    def progress(row: Row) -> None:
        nonlocal done
        done += 1
        print(f'[{done}/{len(names)}] {row.family}: {row.aligner if row.passes else row.reason} ({row.seconds:.1f} s)',
              flush=True)

    out = args.out or (None if args.families else Path('docs/supported.md'))
    try:
        if out is not None:
            check_writable(out.absolute().parent, '--out')
        rows = run_families(names, args.jobs, args.limit, progress)
    except ValueError as error:
        parser.error(str(error))
    print(summary(rows))
    if not any(row.passes for row in rows):
        sys.exit('No family passes: no table was written.')
    if out is not None:
        write_whole(out, markdown(rows, time.monotonic() - started, args.jobs))
        print(f'Wrote {out}.')


if __name__ == '__main__':
    main()
