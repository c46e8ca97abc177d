"""The doctor: what stands between a user's network and zero training loss, found before it is trained."""

from zeroloss.doctor.diagnosis import Diagnosis
from zeroloss.doctor.examine import diagnose
from zeroloss.doctor.finding import Finding, Severity
from zeroloss.doctor.trial import Regime
from zeroloss.training import StepVerdict

__all__ = ["Diagnosis", "Finding", "Regime", "Severity", "StepVerdict", "diagnose"]
