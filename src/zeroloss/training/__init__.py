"""Gradient descent, the theory's quantities along it, and the linearised prediction beside it."""

from zeroloss.training.checkpoint import replace_file
from zeroloss.training.descent import LOSSES, descend, powers_of_two
from zeroloss.training.linearised import Linearised, linearise, predict_descent
from zeroloss.training.probes import FULL_GRAM, Prober
from zeroloss.training.steps import AUTO_FRACTION, check_budget, check_step, step_size, theory_step
from zeroloss.training.trajectory import Probe, Status, Trajectory

__all__ = [
    "AUTO_FRACTION",
    "FULL_GRAM",
    "LOSSES",
    "Linearised",
    "Probe",
    "Prober",
    "Status",
    "Trajectory",
    "check_budget",
    "check_step",
    "descend",
    "linearise",
    "powers_of_two",
    "predict_descent",
    "replace_file",
    "step_size",
    "theory_step",
]
