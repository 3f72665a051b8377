"""Progress display of a study: a bar on a terminal, otherwise a line every 30 seconds."""

from __future__ import annotations

import sys
import time

from pylyap._parallel import ProgressBar
from pylyap._status import Status
from pylyap.studies.store import Store

_MAX_NAMED = 4  # repaired items in a line
_LINE_SECONDS = 30.0  # between lines
_LINE = "{n_fmt} of {total_fmt} runs{postfix}, {rate_fmt}, {remaining} left"


class Display:
    """Progress of a store on stderr."""

    def __init__(self, store: Store, shown: bool) -> None:
        self._statuses, self._shown = store.statuses, shown
        self._before = self._done
        self._begin = self._last = time.monotonic()
        self._finishing = False
        bar, size = shown and sys.stderr.isatty(), store.statuses.size
        self._bar = ProgressBar(size, "study", bar, unit=" runs", done=self._before)
        if store.repaired:
            more = (
                f" and {len(store.repaired) - _MAX_NAMED} more"
                if len(store.repaired) > _MAX_NAMED
                else ""
            )
            self._print(f"damaged, rewritten: {', '.join(store.repaired[:_MAX_NAMED])}{more}")
        if store.damaged:
            self._print(f"damaged or missing chunks, to be computed again: {store.damaged}")

    @property
    def _done(self) -> int:
        return int((self._statuses != Status.NOT_RUN).sum())

    def show(self, note: str = "") -> None:
        """Update the display."""
        diverged, failed = ((self._statuses == s).sum() for s in (Status.DIVERGED, Status.RAISED))
        note = f"{diverged} diverged, {failed} failed" + (note and f", {note}")
        self._bar.show(self._done, note)
        now = time.monotonic()
        if self._shown and not self._bar.shown and now - self._last >= _LINE_SECONDS:
            from tqdm import tqdm

            self._last, elapsed = now, now - self._begin
            given = {"initial": self._before, "unit": " runs", "postfix": note}
            size = self._statuses.size
            self._print(tqdm.format_meter(self._done, size, elapsed, bar_format=_LINE, **given))

    def finishing(self, tasks: int) -> None:
        """Report once that the study stops after the running tasks."""
        if not self._finishing:
            self._finishing = True
            self._print(f"finishing {tasks} running tasks; press Ctrl-C again to stop immediately")

    def _print(self, text: str) -> None:
        if self._shown:
            from tqdm import tqdm

            tqdm.write(f"study: {text}", file=sys.stderr)

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self.show()
        self._bar.close()
