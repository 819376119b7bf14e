"""`lipsync avatar …`: what was learned of a person, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

avatar = typer.Typer(help="What an engine learned of a person.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the `lipsync` program."""
    app.add_typer(avatar, name="avatar")


@avatar.command("export")
def export(
    folder: Annotated[Path, typer.Argument(help="What `lipsync fit --engine gaussian_splatting` printed.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .ply file, as public splat viewers open it.")],
    turntable: Annotated[Path | None, typer.Option(help="A PNG of the head from several sides.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
) -> None:
    """Write a Gaussian avatar as .ply, and a picture of it turning."""
    from serve_app.cli import guarded, say

    def work() -> None:
        from deployments.engines.gaussian_splatting.export import export_avatar

        export_avatar(folder, out, turntable)
        say(str(out))

    guarded(work, debug)
