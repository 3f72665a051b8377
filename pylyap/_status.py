"""How a run ended."""

from enum import IntEnum


class Status(IntEnum):
    """How a run ended: the codes in the `status` of results.

    Examples
    --------
    >>> import numpy as np
    >>> import pylyap as pl
    >>> status = np.array([0, 1, 0])
    >>> int((status == pl.Status.DIVERGED).sum())
    1
    """

    NOT_RUN = -1
    """A run of a study that is still to be done."""
    FINISHED = 0
    """All steps were made."""
    DIVERGED = 1
    """The state became non-finite; results are nan from there on."""
    STOPPED = 2
    """Stopped early by the rule that was given."""
    RAISED = 3
    """A user's function, or in a study the analysis, raised an exception."""


STATUS_MEANING = "0 finished, 1 diverged, 2 stopped early, 3 a user's function raised"
