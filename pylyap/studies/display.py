"""How far a study has come, for who looks on: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time

from pylyap._parallel import ProgressBar
from pylyap._status import Status
from pylyap.studies.store import Store

_NAMED = 4  # things in a line
_LINE_SECONDS = 30.0  # between two lines
_LINE = "{n_fmt} of {total_fmt} runs{postfix}, {rate_fmt}, {remaining} left"


class Display:
    """What stderr shows of a store while it fills."""

    def __init__(self, store: Store, shown: bool) -> None:
        self._statuses, self._shown = store.statuses, shown
        self._before = self._done
        self._begin = self._last = time.monotonic()
        self._finishing = False
        bar, size = shown and sys.stderr.isatty(), store.statuses.size
        self._bar = ProgressBar(size, "study", bar, unit=" runs", done=self._before)
        if store.mended:
            more = f" and {len(store.mended) - _NAMED} more" if len(store.mended) > _NAMED else ""
            self._say(f"damaged, and written anew: {', '.join(store.mended[:_NAMED])}{more}")
        if store.damaged:
            self._say(f"damaged or missing chunks, which will be computed again: {store.damaged}")

    @property
    def _done(self) -> int:
        return int((self._statuses != Status.NOT_RUN).sum())

    def show(self, note: str = "") -> None:
        """Bring it up to date."""
        diverged, failed = ((self._statuses == s).sum() for s in (Status.DIVERGED, Status.RAISED))
        note = f"{diverged} diverged, {failed} failed" + (note and f", {note}")
        self._bar.show(self._done, note)
        now = time.monotonic()
        if self._shown and not self._bar.shown and now - self._last >= _LINE_SECONDS:
            from tqdm import tqdm

            self._last, elapsed = now, now - self._begin
            given = {"initial": self._before, "unit": " runs", "postfix": note}
            size = self._statuses.size
            self._say(tqdm.format_meter(self._done, size, elapsed, bar_format=_LINE, **given))

    def finishing(self, tasks: int) -> None:
        """Say once that it will stop after so many."""
        if not self._finishing:
            self._finishing = True
            self._say(f"finishing {tasks} tasks; Ctrl-C again stops at once")

    def _say(self, text: str) -> None:
        if self._shown:
            from tqdm import tqdm

            tqdm.write(f"study: {text}", file=sys.stderr)

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self.show()
        self._bar.close()
