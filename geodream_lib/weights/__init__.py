"""Weights as data: where public networks come from, and where they lie when they are ready."""

from geodream_lib.weights.folder import network_path, weights_folder
from geodream_lib.weights.table import NETWORKS

__all__ = ["NETWORKS", "network_path", "weights_folder"]
