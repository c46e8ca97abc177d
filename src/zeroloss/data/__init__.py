"""Data: a checked ``Dataset``, where it comes from, and the geometry that the theorems ask about."""

from zeroloss.data.dataset import Dataset
from zeroloss.data.duplicates import Conflict, duplicate_groups, find_conflicts
from zeroloss.data.geometry import nearest_distances, parallel_pairs, row_norms, unit_rows
from zeroloss.data.load import load
from zeroloss.data.normalisation import normalise, pad, remove_mean, standardise, to_sphere
from zeroloss.data.sources import SOURCES, Raw

__all__ = [
    "SOURCES",
    "Conflict",
    "Dataset",
    "Raw",
    "duplicate_groups",
    "find_conflicts",
    "load",
    "nearest_distances",
    "normalise",
    "pad",
    "parallel_pairs",
    "remove_mean",
    "row_norms",
    "standardise",
    "to_sphere",
    "unit_rows",
]
