"""`lipsync serve` and `lipsync key`: the server from the command line. A flag wins over the file, the file over the default."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Annotated, Any

import typer

from deployments.errors import OptionError

LOOPBACK_NAMES = ("localhost",)
Place = dict[str, Any]


def register(app: typer.Typer) -> None:
    """Add the commands to the `lipsync` program."""
    app.command()(serve)
    app.command()(key)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default 8000.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML with the fields of ServeArgs, and host and port.")] = None,
    store: Annotated[str | None, typer.Option(help="Folder or s3://bucket/prefix for everything that is kept.")] = None,
    database: Annotated[str | None, typer.Option(help="postgresql+psycopg://… or sqlite:///…; default: a file.")] = None,
    engine: Annotated[list[str] | None, typer.Option("--engine", "-e", help="Serve only these; may repeat.")] = None,
    replicas: Annotated[int | None, typer.Option(min=1, help="Most replicas per engine.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
) -> None:
    """Start the HTTP server: API, web page, router and engines, on this machine or on a Ray cluster."""
    from serve_app.cli import guarded

    def work() -> None:
        settings = read_config(config)
        flags = {"host": host, "port": port, "store": store, "database": database}
        settings.update({name: value for name, value in flags.items() if value is not None})
        address, number = str(settings.pop("host", "127.0.0.1")), int(settings.pop("port", 8000))
        args = make_args(settings, engine or [], replicas)
        check_exposed(address, bool(args.api.api_keys))
        check_free(address, number)
        start(args, address, number)

    guarded(work, debug)


def key() -> None:
    """Make an API key: the key for the caller, and the digest for `api: {api_keys: [...]}` in the config file."""
    import hashlib
    import secrets

    from serve_app.cli import say

    made = f"ls_{secrets.token_urlsafe(32)}"
    say(f"key     {made}\ndigest  {hashlib.sha256(made.encode()).hexdigest()}")


def read_config(path: Path | None) -> Place:
    """The YAML file as a dictionary. Raises OptionError or InputError."""
    if path is None:
        return {}
    import yaml

    from serve_app.request import check_input

    check_input(path, "config")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionError(f"expected a YAML file, got {path.name}: {error}") from error
    if not isinstance(found, dict):
        raise OptionError(f"expected `name: value` lines in {path.name}, got {type(found).__name__}")
    return found


def make_args(settings: Place, engines: list[str], replicas: int | None) -> Any:
    """The typed arguments. Raises OptionError that names the field."""
    from pydantic import ValidationError

    from deployments.engines.registry import replica_settings
    from serve_app.service.args import ServeArgs

    if engines:
        settings["engines"] = {name: settings.get("engines", {}).get(name, {}) for name in engines}
    try:
        args = ServeArgs.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise OptionError(f"config: {'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}") from error
    for name in args.engines:
        replica_settings(name)
    if replicas is not None:
        changed = {name: {**extra.model_dump(), "max_replicas": replicas} for name, extra in args.engines.items()}
        args = ServeArgs.model_validate({**args.model_dump(), "engines": changed})
    return args


def check_exposed(host: str, keys: bool) -> None:
    """Raise OptionError for a server that others can reach and anybody may use."""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host in LOOPBACK_NAMES
    if not loopback and not keys:
        raise OptionError(
            f"expected API keys for a server on {host}, which other machines can reach; "
            "make one with `lipsync key` and put its digest under api.api_keys, or listen on 127.0.0.1"
        )


def check_free(host: str, port: int) -> None:
    """Raise OptionError for an address that cannot be listened on. Serve shares its socket: where another server listens
    already, each would silently get half of the calls."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that has just ended does not matter
            alone.bind(place)
    except OSError as error:
        raise OptionError(
            f"expected a free address to listen on, got {host}:{port} ({error.strerror}); "
            "stop the program that has it, or choose another --port or --host"
        ) from error


def start(args: Any, host: str, port: int) -> None:
    """Run until a signal."""
    import os

    # uploads would be held in memory by the default proxy and by Serve's queue; must be set before Serve is imported
    os.environ.setdefault("RAY_SERVE_ENABLE_HA_PROXY", "1")
    os.environ.setdefault("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "serve_app.api.flow:middlewares")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from serve_app.app import run

    run(args, host, port)
