"""`lipsync serve` refuses in words what would go wrong in silence."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.errors import OptionError
from serve_app.cli import app
from serve_app.serve_command import check_free


def test_a_port_that_another_server_has_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as Serve does: a second one could join it
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = CliRunner().invoke(app, ["serve", "--port", str(port), "--store", str(tmp_path)])
        assert done.exit_code == 2 and f"127.0.0.1:{port}" in done.output and "--port" in done.output
        assert not list(tmp_path.iterdir())
    check_free("127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(OptionError, match="expected a free address"):
        check_free(host, 8000)


def test_a_server_that_others_reach_wants_keys(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0", "--store", str(tmp_path)])
    assert done.exit_code == 2 and "expected API keys" in done.output and not list(tmp_path.iterdir())
