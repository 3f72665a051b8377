"""Studies: grids of settings, many runs, one analysis."""

from pylyap.studies.pictures import plot_study
from pylyap.studies.plan import StudyPlan, plan_study
from pylyap.studies.report import report_study
from pylyap.studies.results import export_study, open_study
from pylyap.studies.running import run_study
from pylyap.studies.study import Study, Variable

__all__ = [
    "Study",
    "StudyPlan",
    "Variable",
    "export_study",
    "open_study",
    "plan_study",
    "plot_study",
    "report_study",
    "run_study",
]
