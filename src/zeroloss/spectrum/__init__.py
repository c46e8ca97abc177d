"""Extreme eigenvalues of any symmetric matrix or operator; this room knows no networks."""

from zeroloss.spectrum.extremes import Extremes, extremes, largest_eigenvalue, spectral_norm

__all__ = ["Extremes", "extremes", "largest_eigenvalue", "spectral_norm"]
