"""The wiring: `build(args)` makes the whole application, for the command line, config files and Kubernetes alike."""

# No `from __future__ import annotations` here: Serve reads the type of `build`'s argument, not its name.

import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import ray
from ray import serve
from ray.serve import Application, Deployment
from ray.serve.config import AutoscalingPolicy, RequestRouterConfig
from ray.serve.handle import DeploymentHandle

from deployments.engines.live import LiveTask
from deployments.engines.registry import ENGINES, get_engine, moves_pictures
from deployments.engines.replica import EngineReplica, device_free, device_memory
from deployments.engines.scaling import ReplicaSettings
from serve_app.api import create_api
from serve_app.api.flow import enable
from serve_app.api.services import EngineState, Services
from serve_app.config import Secrets
from serve_app.jobs.store import open_jobs
from serve_app.media_store import MediaStore
from serve_app.router import SLOTS, LiveReplicas, Replicas, Router
from serve_app.service.args import ServeArgs
from serve_app.service.log import log, set_up_logs
from serve_app.service.scaling import STREAMS

LOOK_SECONDS = 1.0
SERVE_LOGS = {"encoding": "JSON", "enable_access_log": False}  # one event a line; our own log names jobs and requests
ROUTER_SHUTDOWN_SECONDS = 30.0


def build(args: ServeArgs) -> Application:
    """The application: HTTP ingress, router, and one deployment per engine."""
    open_store = partial(_open_store, args.store_url(), str(args.mirror_folder()), args.store_options)
    gpus = ray.is_initialized() and ray.cluster_resources().get("GPU", 0) > 0
    database = args.database or ("" if Secrets().database else args.database_url())  # what is secret stays in the environment
    policy = AutoscalingPolicy(policy_function="serve_app.service.policy:QueuePolicy", policy_kwargs={"database": database})
    engines = {name: _engine(name, extra.merged(name), gpus, policy, open_store) for name, extra in args.engines.items()}
    router = deployment(Router).options(
        name="router",
        num_replicas=args.router.replicas,
        max_ongoing_requests=100,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=ROUTER_SHUTDOWN_SECONDS,
        logging_config=SERVE_LOGS,
        health_check_period_s=5,
    )
    api = deployment(serve.ingress()(Ingress)).options(
        name="api",
        num_replicas=args.api_replicas,
        max_ongoing_requests=500,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=ROUTER_SHUTDOWN_SECONDS,
        logging_config=SERVE_LOGS,
    )
    spoken = {name: engine for name, engine in engines.items() if ENGINES[name].live}
    return api.bind(args, open_store, router.bind(args, open_store, engines), spoken)


def _open_store(url: str, mirror: str, options: dict[str, Any]) -> MediaStore:
    return MediaStore(url, Path(mirror), options)


def _engine(
    name: str, settings: ReplicaSettings, gpus: bool, policy: AutoscalingPolicy, open_store: Callable[[], MediaStore]
) -> Application:
    """One engine's deployment; each replica holds its share of a GPU where there are GPUs."""
    made = deployment(ServedEngine).options(
        name=name,
        max_ongoing_requests=SLOTS,
        ray_actor_options={"num_gpus": settings.gpus if gpus else 0, "num_cpus": settings.cpus},
        autoscaling_config={
            "min_replicas": settings.min_replicas,
            "max_replicas": settings.max_replicas,
            "initial_replicas": settings.min_replicas,
            "target_ongoing_requests": SLOTS * 0.75,  # full replicas ask for one more, half-full ones do not
            "upscale_delay_s": settings.start_seconds,
            "downscale_delay_s": settings.idle_seconds,
            "policy": policy,
        },
        request_router_config=RequestRouterConfig.model_validate({"initial_backoff_s": 0.01, "max_backoff_s": 0.02}),
        graceful_shutdown_timeout_s=settings.shutdown_seconds,
        health_check_period_s=settings.health_seconds,
        logging_config=SERVE_LOGS,
    )
    return made.bind(name, open_store)


def deployment(cls: type) -> Deployment:
    """A class as a deployment of Serve."""
    made: Deployment = serve.deployment(cls)  # type: ignore[assignment]  # the overload for decorators
    return made


class ServedEngine(EngineReplica):
    """A replica that also tells how much memory of its GPU it holds, and speaks sound from another process."""

    async def live(self, task: LiveTask, desk: Any, stream: str) -> AsyncIterator[Any]:
        """A live portrait of the sound that comes to an actor."""
        async for event in self.speak(task, lambda: desk.take.remote(stream)):
            yield event

    def weigh(self) -> tuple[int, int, float]:
        """Memory of the GPU that this process reserved, 0 without a GPU; live portraits now; share of the GPU that is free."""
        return device_memory(), self.streams, device_free()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What Serve gives to the policy: see `service.policy`."""
        return {STREAMS: float(self.streams)}


class Ingress:
    """Deployment: the HTTP API. Reads and writes the table and the store; never renders."""

    def __init__(
        self,
        args: ServeArgs,
        open_store: Callable[[], MediaStore],
        router: DeploymentHandle[Any],
        spoken: dict[str, DeploymentHandle[Any]],
    ) -> None:
        set_up_logs(args.log_level)
        enable()
        self._args, self._router = args, router
        self._live: dict[str, Replicas] | None = None
        self._seen = time.monotonic()
        self._services = Services(
            jobs=open_jobs(args.database_url()),
            media=open_store(),
            settings=args.api,
            engines=self._engine_states,
            ready=self._ready,
            live=LiveReplicas(spoken) if spoken else None,
        )
        threading.Thread(target=self._look_often, daemon=True).start()
        log.info("api_started", pid=os.getpid())

    def __serve_build_asgi_app__(self) -> Any:
        return create_api(self._services)

    def _engine_states(self) -> dict[str, EngineState]:
        live = self._live or {}
        none = Replicas()
        return {name: engine_state(name, live.get(name, none), extra.merged(name)) for name, extra in self._args.engines.items()}

    def _ready(self) -> str | None:
        """None once a router lives and every engine that shall be resident is; else what is missing."""
        live = self._live
        if live is None:
            return "the router is starting"
        lives = {name for name, replicas in live.items() if replicas.live}
        late = [n for n, extra in self._args.engines.items() if n not in lives and extra.merged(n).min_replicas]
        return f"starting: {', '.join(late)}" if late else None

    def _look_often(self) -> None:
        while True:
            try:
                self._live = self._router.state.remote().result(timeout_s=10)
            except Exception as error:  # noqa: BLE001 a router that died is started again; requests are answered meanwhile
                log.warning("router_silent", error=f"{type(error).__name__}: {error}")
            time.sleep(LOOK_SECONDS)


def engine_state(name: str, replicas: Replicas, settings: ReplicaSettings) -> EngineState:
    """What callers may know of an engine."""
    state: Literal["ready", "starting", "on demand"] = "starting" if settings.min_replicas else "on demand"
    if replicas.live:
        state = "ready"
    entry, limits = ENGINES[name], get_engine(name).limits()
    return EngineState(
        name,
        entry.about,
        limits.options,
        state,
        entry.takes,
        replicas.live,
        replicas.gpu_bytes,
        moves_pictures(name),
        replicas.streams,
        settings.max_replicas,
        settings.min_replicas,
        replicas.gpu_free,
        limits.bounds,
    )


def run(args: ServeArgs, host: str, port: int) -> None:
    """`lipsync serve`: start Ray here if there is none, the application, and block until a signal."""
    if not ray.is_initialized():
        ray.init(log_to_driver=True, include_dashboard=False)
    serve.start(http_options={"host": host, "port": port})
    try:
        serve.run(build(args), name="lipsync", route_prefix="/", blocking=False)
        log.info("serving", host=host, port=port)
        while True:
            time.sleep(3600)
    finally:
        serve.shutdown()
        ray.shutdown()
