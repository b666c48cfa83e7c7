"""Our tools by name, wherever the package lies: ``python -m ckd_mmdet train CONFIG ...``."""

import argparse
import runpy
import sys
from pathlib import Path

from ckd_mmdet.versions import versions

TOOLS = Path(__file__).parent / '.mim' / 'tools'


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m ckd_mmdet', description=__doc__)
    parser.add_argument('--version', action='version', version=versions())
    parser.add_argument('tool', choices=sorted(path.stem for path in TOOLS.glob('*.py')),
                        help="what follows are the tool's own arguments")
    tool = TOOLS / f'{parser.parse_args(sys.argv[1:2]).tool}.py'
    sys.argv[:2] = [str(tool)]
    try:
        runpy.run_path(str(tool), run_name='__main__')
    except ModuleNotFoundError as error:
        if error.name not in ('torch', 'torchvision'):
            raise
        sys.exit(f'{parser.prog} {tool.stem} needs torch and torchvision, and {error.name} cannot be found. Install '
                 'them for this machine as https://pytorch.org/get-started tells, then try again.')


if __name__ == '__main__':
    main()
