"""Studies: grids of settings, many runs, one analysis."""

from pylyap.studies.outline import Variable
from pylyap.studies.study import Study

__all__ = ["Study", "Variable"]
