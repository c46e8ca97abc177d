"""Spectra of any symmetric matrix or operator; this room knows no networks."""

from zeroloss.spectrum.alignment import Alignment, alignment
from zeroloss.spectrum.density import Estimate, LanczosDensity, lanczos_density
from zeroloss.spectrum.eigenpairs import Eigenpairs, eigenpairs
from zeroloss.spectrum.extremes import Extremes, extremes, largest_eigenvalue
from zeroloss.spectrum.norm import spectral_norm
from zeroloss.spectrum.rank import EffectiveRank, effective_rank, rank_of_eigenvalues
from zeroloss.spectrum.smallest import Smallest, smallest_eigenvalue

__all__ = [
    "Alignment",
    "EffectiveRank",
    "Eigenpairs",
    "Estimate",
    "Extremes",
    "LanczosDensity",
    "Smallest",
    "alignment",
    "effective_rank",
    "eigenpairs",
    "extremes",
    "lanczos_density",
    "largest_eigenvalue",
    "rank_of_eigenvalues",
    "smallest_eigenvalue",
    "spectral_norm",
]
