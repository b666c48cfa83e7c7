"""Run the corpus and print its table: ``python -m tests.wild [NAME ...]``, pairs whose student has such a name."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
import warnings
from pathlib import Path

from .pairs import PAIRS
from .run import attempts, prepare, run


def main() -> None:
    warnings.filterwarnings('ignore')
    wanted = [pair for pair in PAIRS if not sys.argv[1:] or any(name in pair.student for name in sys.argv[1:])]
    print('| student | teacher | method | result | s |\n| --- | --- | --- | --- | --- |')
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for pair, method in attempts(wanted):
            start, said = time.perf_counter(), io.StringIO()
            try:
                with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                    losses = run(pair, method, Path(folder))
                result = ', '.join(f'{key} {value:.3g}' for key, value in losses.items())
            except Exception as error:  # whatever a user would see is the row's result
                failed += 1
                result = f'**{type(error).__name__}**: {str(error).splitlines()[0] if str(error) else ""}'
            print(f'| {pair.student} | {pair.teacher} | {method} | {result} | {time.perf_counter() - start:.0f} |',
                  flush=True)
    sys.exit(failed > 0)


if __name__ == '__main__':
    main()
