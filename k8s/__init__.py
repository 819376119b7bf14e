"""The cluster: manifests, and `python -m k8s` that puts them there."""
