"""Gradient descent, the theory's quantities along it, and the predictions beside it."""

from zeroloss.training.batches import Batches, make_batches
from zeroloss.training.checkpoint import replace_file
from zeroloss.training.descent import descend, powers_of_four
from zeroloss.training.edge import Edge, StepVerdict, stability_edge, step_verdict
from zeroloss.training.flow import Flow, gradient_flow
from zeroloss.training.function_space import forecast_descent
from zeroloss.training.linearised import Linearised, linearise
from zeroloss.training.losses import LOSSES, Loss, find_loss
from zeroloss.training.prediction import Prediction, predict, predict_descent
from zeroloss.training.probes import FULL_GRAM, Prober
from zeroloss.training.rayleigh import Tracked
from zeroloss.training.schedule import check_momentum, check_schedule
from zeroloss.training.steps import AUTO_FRACTION, check_budget, check_step, expected_smoothness, step_size, theory_step
from zeroloss.training.trajectory import Probe, Status, Trajectory

__all__ = [
    "AUTO_FRACTION",
    "FULL_GRAM",
    "LOSSES",
    "Batches",
    "Edge",
    "Flow",
    "Linearised",
    "Loss",
    "Prediction",
    "Probe",
    "Prober",
    "Status",
    "StepVerdict",
    "Tracked",
    "Trajectory",
    "check_budget",
    "check_momentum",
    "check_schedule",
    "check_step",
    "descend",
    "expected_smoothness",
    "find_loss",
    "forecast_descent",
    "gradient_flow",
    "linearise",
    "make_batches",
    "powers_of_four",
    "predict",
    "predict_descent",
    "replace_file",
    "stability_edge",
    "step_size",
    "step_verdict",
    "theory_step",
]
