"""Status codes of runs."""

from enum import IntEnum


class Status(IntEnum):
    """Status codes of runs, as in the `status` of results.

    Examples
    --------
    >>> import numpy as np
    >>> import pylyap as pl
    >>> status = np.array([0, 1, 0])
    >>> int((status == pl.Status.DIVERGED).sum())
    1
    """

    NOT_RUN = -1
    """A run of a study that has not been computed yet."""
    FINISHED = 0
    """All steps were completed."""
    DIVERGED = 1
    """The state became non-finite; later results are nan."""
    STOPPED = 2
    """Stopped early by the requested stopping rule."""
    RAISED = 3
    """A user-supplied function, or in a study the analysis, raised an exception."""


STATUS_MEANING = "0 finished, 1 diverged, 2 stopped early, 3 a user's function raised"
