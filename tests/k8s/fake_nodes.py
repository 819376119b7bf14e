"""A real Ray head with the real autoscaler on the worker groups of gpu-prod; its machines are processes of this one.

    python tests/k8s/fake_nodes.py ENGINE   prints how many GPU nodes there were: before, with two actors, and after

Run as a process of its own: Ray keeps state per process, and everything it starts is ended with its group.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FAKE_HEAD_NODE_TYPE, FakeMultiNodeProvider
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
IDLE_SECONDS = 4
PATIENCE = 90.0


def config(gcs: str) -> dict[str, Any]:
    """The autoscaler's config as it reads it from our manifest, for machines that are processes."""
    from k8s.render import OVERLAYS, render

    (service,) = [document for document in render(OVERLAYS / "gpu-prod") if document["kind"] == "RayService"]
    spec = service["spec"]["rayClusterConfig"]
    for group in spec["workerGroupSpecs"]:
        group |= {"replicas": 0, "minReplicas": 0, "idleTimeoutSeconds": IDLE_SECONDS}
    found = _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "lipsync", "namespace": "lipsync"}, "spec": spec})
    types = found["available_node_types"]
    types[FAKE_HEAD_NODE_TYPE] = types.pop("headgroup")
    for kind in types.values():
        kind["resources"].pop("memory", None)  # more than this machine may have
        kind["node_config"] = {}
    provider = f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}"
    fake = {
        "type": "external",
        "module": provider,
        "launch_multiple": True,
        "head_node_id": FAKE_HEAD_NODE_ID,
        "gcs_address": gcs,
    }
    return found | {"head_node_type": FAKE_HEAD_NODE_TYPE, "provider": fake, "idle_timeout_minutes": IDLE_SECONDS / 60}


def start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """The head, in a process group of its own."""
    path = folder / "autoscaling.json"
    path.write_text(json.dumps(config(f"127.0.0.1:{port}")))
    own = {
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_NODE_TYPE_NAME": FAKE_HEAD_NODE_TYPE,
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    options = [
        f"--port={port}",
        "--num-cpus=0",
        "--include-dashboard=false",
        f"--autoscaling-config={path}",
        f"--temp-dir={folder}",
    ]
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", *options]
    log = (folder / "head.log").open("wb")
    return subprocess.Popen(command, env={**os.environ, **own}, stdout=log, stderr=log, start_new_session=True)


def connect(port: int) -> None:
    """Wait for the head."""
    for _ in range(120):
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            break
        except OSError:
            time.sleep(0.5)
    ray.init(address=f"127.0.0.1:{port}", log_to_driver=False)


def gpu_nodes() -> int:
    """Machines with a GPU that live."""
    return sum(node["Alive"] and node["Resources"].get("GPU", 0) > 0 for node in ray.nodes())


def watch(resource: str) -> list[int]:
    """GPU machines before anybody asks, with two replicas of an engine, and after they left."""

    @ray.remote(num_cpus=1, num_gpus=1, resources={resource: 1})
    class Replica:
        def node(self) -> str:
            return str(ray.get_runtime_context().get_node_id())

    seen = [gpu_nodes()]
    replicas = [Replica.remote() for _ in range(2)]
    assert len(set(ray.get([replica.node.remote() for replica in replicas], timeout=PATIENCE))) == 2
    seen.append(gpu_nodes())
    for replica in replicas:
        ray.kill(replica)
    limit = time.monotonic() + PATIENCE
    while gpu_nodes() and time.monotonic() < limit:
        time.sleep(0.5)
    return [*seen, gpu_nodes()]


def main() -> None:
    """Start, watch, end."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: sockets lie in it
    os.environ["RAY_TMPDIR"] = str(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = start(folder, port)
    try:
        connect(port)
        print(json.dumps(watch(sys.argv[1])))
    except Exception:
        print((folder / "head.log").read_text()[-4000:], file=sys.stderr)
        raise
    finally:
        ray.shutdown()
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
