"""Tensor operations: each a folder with a reference, fast paths and one checked door."""

from importlib import metadata

try:  # the public package `kernels` would be shadowed by this folder, silently
    metadata.version("kernels")
except metadata.PackageNotFoundError:
    pass
else:
    raise ImportError("the PyPI package 'kernels' is installed and collides with this folder; pip uninstall kernels")
