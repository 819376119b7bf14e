"""`python -m k8s …`: render, deploy, status, batch, scale, upgrade, delete."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli import guarded, say

app = typer.Typer(
    help="The server on a Kubernetes cluster with KubeRay. docs/operate.md tells the whole story.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Overlay = Annotated[str, typer.Option("--overlay", "-k", help="cpu-demo, gpu-prod, dev, or a folder of your own.")]
Image = Annotated[str | None, typer.Option("--image", "-i", help="The image with its tag, instead of the overlay's.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]


@app.command()
def render(overlay: Overlay = "cpu-demo", image: Image = None, debug: Debug = False) -> None:
    """Print what `deploy` would apply."""

    def work() -> None:
        from k8s.engines import check_written
        from k8s.render import overlay_path, to_yaml
        from k8s.render import render as make

        folder = overlay_path(overlay)
        check_written(folder)
        say(to_yaml(make(folder, image)).rstrip())

    guarded(work, debug)


@app.command()
def engines(
    overlays: Annotated[list[str] | None, typer.Argument(help="Default: all of ours.")] = None, debug: Debug = False
) -> None:
    """Write every overlay's engine parts anew, from its site.yaml and the table of engines."""

    def work() -> None:
        from k8s.engines import has_site, written
        from k8s.render import OVERLAYS, overlay_path

        folders = [overlay_path(name) for name in overlays or ()] or [
            path for path in sorted(OVERLAYS.iterdir()) if has_site(path)
        ]
        for folder in folders:
            for path, text in written(folder).items():
                changed = not path.is_file() or path.read_text(encoding="utf-8") != text
                path.write_text(text, encoding="utf-8")
                say(f"{shown(path)}  {'written' if changed else 'as it was'}")

    guarded(work, debug)


def shown(path: Path) -> str:
    """A path as people would type it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def main() -> None:
    """Entry of `python -m k8s`."""
    app()
