"""Studies: a grid of settings, many runs of one analysis at each of its points."""

from pylyap.studies.plan import StudyPlan, plan_study
from pylyap.studies.results import export_study, open_study
from pylyap.studies.running import run_study

__all__ = ["StudyPlan", "export_study", "open_study", "plan_study", "run_study"]
