"""Spectra of any symmetric matrix or operator; this room knows no networks."""

from zeroloss.spectrum.extremes import Extremes, extremes, largest_eigenvalue
from zeroloss.spectrum.norm import spectral_norm
from zeroloss.spectrum.smallest import Smallest, smallest_eigenvalue

__all__ = ["Extremes", "Smallest", "extremes", "largest_eigenvalue", "smallest_eigenvalue", "spectral_norm"]
