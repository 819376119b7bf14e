"""Model files: the manifest, fetching with verification, loading."""

from deployments.weights.fetch import weights_path
from deployments.weights.load import bundle_member, load_tensors

__all__ = ["bundle_member", "load_tensors", "weights_path"]
