"""Weights as data: where public networks come from, how they are read without trust, and where they lie when ready."""

from geodream_lib.weights.folder import network_path, weights_folder
from geodream_lib.weights.read import read_weights
from geodream_lib.weights.table import NETWORKS

__all__ = ["NETWORKS", "network_path", "read_weights", "weights_folder"]
