"""zeroloss: whether, how fast and why gradient descent drives a network's training loss to zero."""

from zeroloss.certificate import Certificate, Polished, Verified, certify, polish, verify
from zeroloss.claims import CLAIMS, Claim, Verdict
from zeroloss.data import Dataset, load
from zeroloss.doctor import Diagnosis, diagnose
from zeroloss.errors import ArgumentError, FileError, ZerolossError
from zeroloss.gram import gram
from zeroloss.kernels import limit_kernel
from zeroloss.networks import cnn, conv_resnet, fully_connected, resnet
from zeroloss.report import write_report
from zeroloss.spectrum import extremes
from zeroloss.study import Study, check, run_study
from zeroloss.training import Probe, Trajectory, descend, predict, predict_descent, stability_edge

__all__ = [
    "CLAIMS",
    "ArgumentError",
    "Certificate",
    "Claim",
    "Dataset",
    "Diagnosis",
    "FileError",
    "Polished",
    "Probe",
    "Study",
    "Trajectory",
    "Verdict",
    "Verified",
    "ZerolossError",
    "certify",
    "check",
    "cnn",
    "conv_resnet",
    "descend",
    "diagnose",
    "extremes",
    "fully_connected",
    "gram",
    "limit_kernel",
    "load",
    "polish",
    "predict",
    "predict_descent",
    "resnet",
    "run_study",
    "stability_edge",
    "verify",
    "write_report",
]
__version__ = "0.1.0"
