"""Our tools by name, wherever the package lies: ``python -m ckd_mmdet train CONFIG ...``."""

import argparse
import runpy
import sys
from pathlib import Path

TOOLS = Path(__file__).parent / '.mim' / 'tools'


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m ckd_mmdet', description=__doc__)
    parser.add_argument('tool', choices=sorted(path.stem for path in TOOLS.glob('*.py')),
                        help="what follows are the tool's own arguments")
    tool = TOOLS / f'{parser.parse_args(sys.argv[1:2]).tool}.py'
    sys.argv[:2] = [str(tool)]
    runpy.run_path(str(tool), run_name='__main__')


if __name__ == '__main__':
    main()
