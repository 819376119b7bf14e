"""`python -m k8s …`: render, deploy, status, batch, scale, upgrade, delete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serve_app.cli import guarded, say, show

if TYPE_CHECKING:
    from k8s.batch import Batch
    from k8s.cluster import Cluster

app = typer.Typer(
    help="The server on a Kubernetes cluster with KubeRay. docs/operate.md tells the whole story.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Overlay = Annotated[str, typer.Option("--overlay", "-k", help="cpu-demo, gpu-prod, dev, or a folder of your own.")]
Image = Annotated[str | None, typer.Option("--image", "-i", help="The image with its tag, instead of the overlay's.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Where it lives.")]
Context = Annotated[str | None, typer.Option(help="Of the kubeconfig; default: its current one.")]
Kubeconfig = Annotated[str | None, typer.Option(envvar="KUBECONFIG", help="File with the cluster's address and a login.")]
Force = Annotated[bool, typer.Option("--force", help="Also take fields that others set.")]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds to wait.")]
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


@app.command()
def deploy(
    overlay: Overlay = "cpu-demo",
    image: Image = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    force: Force = False,
    timeout: Timeout = 1800,
    debug: Debug = False,
) -> None:
    """Apply an overlay and wait until it serves. Again: only what changed; see `upgrade` for another image."""

    def work() -> None:
        from k8s import deploy as steps
        from k8s.cluster import Cluster
        from k8s.render import overlay_path

        documents = steps.prepare(overlay_path(overlay), image)
        steps.deploy(Cluster(namespace_of(documents), context, kubeconfig), documents, say, force, timeout)
        say("it serves; `python -m k8s status` shows it")

    guarded(work, debug)


@app.command()
def upgrade(
    overlay: Overlay = "cpu-demo",
    image: Image = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    force: Force = False,
    timeout: Timeout = 3600,
    debug: Debug = False,
) -> None:
    """Move to another image or cluster setting without a gap: the old cluster serves until the new one does."""

    def work() -> None:
        from k8s import deploy as steps
        from k8s.cluster import Cluster
        from k8s.render import overlay_path

        documents = steps.prepare(overlay_path(overlay), image)
        steps.upgrade(Cluster(namespace_of(documents), context, kubeconfig), documents, say, force, timeout)

    guarded(work, debug)


@app.command()
def status(
    namespace: Namespace = "lipsync", context: Context = None, kubeconfig: Kubeconfig = None, debug: Debug = False
) -> None:
    """Application, replicas, queue and GPUs."""

    def work() -> None:
        from k8s.cluster import Cluster
        from k8s.status import status as look

        found = look(Cluster(namespace, context, kubeconfig))
        for line in found.lines:
            say(line)
        rows = [(row.group, row.pods, row.bounds, str(row.gpus), row.engine) for row in found.rows]
        show(("group", "pods ready", "may be", "GPUs", "engines"), rows)
        say(found.queue)

    guarded(work, debug)


@app.command()
def scale(
    engine: str,
    least: Annotated[int | None, typer.Option("--min", min=0, help="Replicas that are always there.")] = None,
    most: Annotated[int | None, typer.Option("--max", min=1, help="Most replicas.")] = None,
    namespace: Namespace = "lipsync",
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    debug: Debug = False,
) -> None:
    """Other bounds for ENGINE on the running cluster."""

    def work() -> None:
        from k8s.cluster import Cluster
        from k8s.scale import scale as change

        change(Cluster(namespace, context, kubeconfig), engine, least, most, say)

    guarded(work, debug)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def batch(
    command: typer.Context,
    manifest: Annotated[str, typer.Argument(help="A file here, or an address that the cluster can read.")],
    template: Annotated[str, typer.Option("--template", "-t", help="Name of the template.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Where the videos go, such as s3://bucket/prefix.")],
    engine: Annotated[str, typer.Option("--engine", "-e", help="See `lipsync models`.")] = "video_rewrite",
    workers: Annotated[int | None, typer.Option(min=1, help="Most at once; default: the engine's most replicas.")] = None,
    namespace: Namespace = "lipsync",
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    timeout: Timeout = 7 * 86400,
    dry: Annotated[bool, typer.Option("--dry-run", help="Print the documents, make nothing.")] = False,
    debug: Debug = False,
) -> None:
    """Run a manifest on a cluster of its own and follow its log. Again: goes on with the same batch.

    Further options are handed to `serve_app.batch`.
    """

    def work() -> None:
        from k8s.batch import Batch, run
        from k8s.cluster import Cluster

        asked = Batch(manifest, template, out, engine, workers, tuple(command.args))
        cluster = Cluster(namespace, context, kubeconfig)
        if dry:
            say(plan_batch(cluster, asked))
            return
        run(cluster, asked, say, timeout)

    guarded(work, debug)


@app.command()
def delete(
    overlay: Overlay = "cpu-demo",
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    data: Annotated[bool, typer.Option("--data", help="Also volumes, secrets and the namespace: nothing is left.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    timeout: Timeout = 600,
    debug: Debug = False,
) -> None:
    """Take an overlay off the cluster."""

    def work() -> None:
        from k8s import deploy as steps
        from k8s.cluster import Cluster
        from k8s.render import overlay_path
        from k8s.render import render as make

        documents = sorted(make(overlay_path(overlay)), key=steps.order)
        cluster = Cluster(namespace_of(documents), context, kubeconfig)
        if not yes:
            typer.confirm(f"Delete {overlay} in namespace {cluster.namespace}{' with its data' if data else ''}?", abort=True)
        steps.delete(cluster, documents, say, data, timeout)

    guarded(work, debug)


def plan_batch(cluster: Cluster, asked: Batch) -> str:
    """What a batch would make, as YAML. Raises NotReady."""
    from k8s.batch import documents
    from k8s.deploy import SERVICE
    from k8s.errors import NotReady
    from k8s.render import to_yaml

    service = cluster.get("RayService", SERVICE)
    if service is None:
        raise NotReady(f"expected RayService/{SERVICE} in {cluster.namespace}: a batch takes its image; run `deploy` first")
    return to_yaml(documents(asked, service)).rstrip()


def namespace_of(documents: list[dict[str, Any]]) -> str:
    """The namespace that all documents of an overlay are in."""
    (service,) = [document for document in documents if document["kind"] == "RayService"]
    return str(service["metadata"]["namespace"])


def shown(path: Path) -> str:
    """A path as people would type it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def main() -> None:
    """Entry of `python -m k8s`."""
    app()
