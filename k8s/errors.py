"""What can go wrong between here and a cluster.

LipSyncError
|-- OptionError      exit 2: an overlay or an option that means nothing
`-- ClusterError     exit 7: the cluster refused, or cannot be reached
    |-- NoCluster        nobody answers at the address of the kubeconfig
    |-- NotAllowed       the user of the kubeconfig may not do that
    |-- NotInstalled     a kind is unknown to the cluster, or older than the manifests
    |-- Conflict         somebody else set these fields
    |-- Refused          the cluster found a fault in a manifest
    `-- NotReady         it was accepted, but did not come up in time
"""

from __future__ import annotations

from deployments.errors import LipSyncError


class ClusterError(LipSyncError):
    """The cluster refused, or cannot be reached."""

    exit_code = 7
    code = "cluster_error"


class NoCluster(ClusterError):
    """Nobody answers."""


class NotAllowed(ClusterError):
    """This user may not do that."""


class NotInstalled(ClusterError):
    """A kind is missing or too old."""


class Conflict(ClusterError):
    """Somebody else set these fields."""


class Refused(ClusterError):
    """The cluster found a fault in a manifest."""


class NotReady(ClusterError):
    """It did not come up in time."""
