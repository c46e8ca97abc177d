"""Certificates: proofs, rounding included, that zero-loss weights lie near given ones and that training reaches them."""

from zeroloss.certificate.certificate import ASSUMPTIONS, Certificate, Numbers, Status
from zeroloss.certificate.certify import METHODS, PRECISIONS, certify
from zeroloss.certificate.chain import read_chain
from zeroloss.certificate.polish import Polished, PolishStatus, polish
from zeroloss.certificate.theorems import (
    Descent,
    Fails,
    Flow,
    Newton,
    Stochastic,
    gradient_descent,
    gradient_flow,
    newton,
    stochastic_descent,
)
from zeroloss.certificate.verifying import Verified, verify

__all__ = [
    "ASSUMPTIONS",
    "METHODS",
    "PRECISIONS",
    "Certificate",
    "Descent",
    "Fails",
    "Flow",
    "Newton",
    "Numbers",
    "PolishStatus",
    "Polished",
    "Status",
    "Stochastic",
    "Verified",
    "certify",
    "gradient_descent",
    "gradient_flow",
    "newton",
    "polish",
    "read_chain",
    "stochastic_descent",
    "verify",
]
