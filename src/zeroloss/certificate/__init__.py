"""Certificates of zero loss: weights polished to where the loss vanishes up to rounding."""

from zeroloss.certificate.polish import Polished, PolishStatus, polish

__all__ = ["PolishStatus", "Polished", "polish"]
