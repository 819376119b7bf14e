"""Model files: the manifest, fetching with verification, loading."""

from deployments.weights.fetch import weights_path
from deployments.weights.load import AGAIN, bundle_member, load_facts, load_tensors, map_bytes, map_tensors

__all__ = ["AGAIN", "bundle_member", "load_facts", "load_tensors", "map_bytes", "map_tensors", "weights_path"]
