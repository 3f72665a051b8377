"""Studies: grids of settings, many runs, one analysis."""

from pylyap.studies.study import Study, Variable

__all__ = ["Study", "Variable"]
