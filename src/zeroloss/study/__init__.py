"""Studies: a specification, a resumable run in one folder, a result of plain values; and claims checked one by one."""

from zeroloss.study.folder import default_folder
from zeroloss.study.judging import check, judge
from zeroloss.study.result import StudyResult, read_result
from zeroloss.study.run import Watch, run_study, summarise
from zeroloss.study.specification import DataSpec, NetworkSpec, Study, TrainingSpec, read_study, study_from

__all__ = [
    "DataSpec",
    "NetworkSpec",
    "Study",
    "StudyResult",
    "TrainingSpec",
    "Watch",
    "check",
    "default_folder",
    "judge",
    "read_result",
    "read_study",
    "run_study",
    "study_from",
    "summarise",
]
