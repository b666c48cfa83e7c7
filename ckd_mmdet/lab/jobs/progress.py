"""One progress bar over all that a command trains, with the time that remains."""

from __future__ import annotations

import io
import sys
import time
from typing import TextIO

from ckd_mmdet.text import plain
from tqdm import tqdm


class Progress:
    """A live bar on a terminal; elsewhere a line every ``interval`` seconds.

    Args:
        total: What ``done`` counts to: seconds that a plan gives to everything, or steps.
    """

    doubt = 30.0
    """Seconds of work after which what was measured counts as much as the plan."""

    def __init__(self, total: float, stream: TextIO | None = None, interval: float = 20.0) -> None:
        self.total, self.interval = total, interval
        self.stream = sys.stderr if stream is None else stream
        self.live = self.stream.isatty()
        self.started = time.monotonic()
        self.first: float | None = None
        self.printed = -interval
        self.bar = tqdm(total=total, file=self.stream if self.live else io.StringIO(), dynamic_ncols=self.live,
                        ncols=None if self.live else 100, bar_format='{percentage:3.0f}%|{bar:24}| {elapsed}{postfix}')

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def show(self, done: float, text: str) -> None:
        """Say that ``done`` seconds of the plan are done; ``text`` names what is being done.

        The remaining time is what the plan says, times how much slower or faster than the plan this machine has been
        so far.
        """
        if self.first is None:
            self.first = done  # what an earlier command did
        self.show_left(done, remaining(self.total - done, done - self.first, self.elapsed, self.doubt), text)

    def show_left(self, done: float, left: float | None, text: str) -> None:
        """The same, where somebody else knows what is ``left`` in seconds, or that nobody knows yet."""
        self.bar.n = min(done, self.total)
        known = '?' if left is None else tqdm.format_interval(left)
        self.bar.set_postfix_str(f'{known} left: {text}', refresh=self.live)
        if not self.live and self.elapsed >= self.printed + self.interval:
            self.printed = self.elapsed
            print(str(self.bar), file=self.stream, flush=True)

    def say(self, text: str) -> None:
        """Print a line without breaking the bar."""
        if self.live:
            self.bar.clear()
        print(plain(text), file=self.stream, flush=True)
        if self.live:
            self.bar.refresh()


def remaining(left: float, done: float, elapsed: float, doubt: float) -> float:
    """Seconds for ``left`` seconds of the plan, where ``done`` seconds of it took ``elapsed``."""
    return max(left, 0.0) * (elapsed + doubt) / (max(done, 0.0) + doubt)
