"""Data: a checked ``Dataset``, where it comes from, and the geometry that the theorems ask about."""

from zeroloss.data.dataset import Dataset
from zeroloss.data.duplicates import Conflict, duplicate_groups, find_conflicts
from zeroloss.data.geometry import nearest_distances, parallel_pairs, row_norms, unit_rows
from zeroloss.data.load import load
from zeroloss.data.normalisation import normalise, pad, remove_mean, standardise, to_sphere
from zeroloss.data.relabel import with_noisy_labels, with_random_labels
from zeroloss.data.shrink import shrink
from zeroloss.data.sources import FAMILIES, SOURCES, Raw
from zeroloss.data.synthetic import SYNTHETIC, antipodal_pairs, parallel_pair, parity, sphere, teacher, two_clusters, xor

__all__ = [
    "FAMILIES",
    "SOURCES",
    "SYNTHETIC",
    "Conflict",
    "Dataset",
    "Raw",
    "antipodal_pairs",
    "duplicate_groups",
    "find_conflicts",
    "load",
    "nearest_distances",
    "normalise",
    "pad",
    "parallel_pair",
    "parallel_pairs",
    "parity",
    "remove_mean",
    "row_norms",
    "shrink",
    "sphere",
    "standardise",
    "teacher",
    "to_sphere",
    "two_clusters",
    "unit_rows",
    "with_noisy_labels",
    "with_random_labels",
    "xor",
]
