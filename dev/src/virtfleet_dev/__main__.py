"""`virtfleet-dev`: a one-machine cluster, with pods or without, and the images, from the command line."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from virtfleet_dev import kubernetes, prometheus
from virtfleet_dev.cluster import Cluster
from virtfleet_dev.configuration import OPERATOR_NAMESPACE
from virtfleet_dev.containers import REGISTRY, TARGETS, ImagesError, Order, build_images
from virtfleet_dev.guest_image import guest_files
from virtfleet_dev.helm import Helm, chart
from virtfleet_dev.kube_tools import kube_tools
from virtfleet_dev.nested_image import nested_files
from virtfleet_dev.paths import default_dev_dir
from virtfleet_dev.pod_cluster import PodCluster
from virtfleet_dev.quickstart import quickstart as run_quickstart

_CONSOLE = Console(highlight=False)


def _say() -> Callable[[str], None]:
    start = time.monotonic()

    def say(text: str) -> None:
        _CONSOLE.print(f"[dim]{time.monotonic() - start:6.1f} s[/dim]  {text}")

    return say


def _cluster() -> Cluster:
    return Cluster(default_dev_dir(), _say())


@click.group()
def main() -> None:
    """Run a whole virtfleet cluster on this machine."""


def _say_how_to_use(cluster: Cluster) -> None:
    cluster.say("Ready. Use it with:")
    _CONSOLE.print(f"\n  export KUBECONFIG={cluster.control_plane.kubeconfig}", soft_wrap=True)
    _CONSOLE.print(f"  export PATH={cluster.directory / 'bin'}:$PATH\n", soft_wrap=True)


def _remove(cluster: Cluster) -> None:
    cluster.say("Stopping")
    cluster.remove()
    cluster.say("Nothing is left")


@main.command()
@click.option("--nodes", default=1, type=click.IntRange(1, 8), show_default=True, help="Hypervisor nodes.")
def up(nodes: int) -> None:
    """Start the cluster, or what of it does not run."""
    cluster = _cluster()
    cluster.up(nodes)
    _say_how_to_use(cluster)


@main.command()
def down() -> None:
    """Stop the cluster and remove everything it made."""
    _remove(_cluster())


def _pod_cluster() -> PodCluster:
    directory = default_dev_dir()
    return PodCluster(directory.with_name(f"{directory.name}-kubelet"), _say())


@main.command()
def kubelet_up() -> None:
    """Start a cluster whose operators and daemon are pods, or what of it does not run, and install the chart."""
    cluster = _pod_cluster()
    cluster.up()
    cluster.say("Building the images of the operator and the node daemon")
    values = cluster.load(build_images(Order(("operator", "node")), default_dev_dir() / "images", cluster.say))
    cluster.say("Installing the chart")
    helm = Helm(kube_tools().helm, cluster.control_plane.kubeconfig)
    options = ("--namespace", OPERATOR_NAMESPACE, "--create-namespace", "--wait")
    helm.run("upgrade", "--install", "virtfleet", chart(), *options, "--values", values)
    _say_how_to_use(cluster)


@main.command()
def kubelet_down() -> None:
    """Stop that cluster and remove everything it made."""
    _remove(_pod_cluster())


@main.command()
def quickstart() -> None:
    """From nothing to a running machine, step by step."""
    run_quickstart(_cluster(), _CONSOLE)


@main.command()
def caches() -> None:
    """Download and build what all tests use and keep between runs: two runs at once would wait for each other."""
    say = _say()
    parts: tuple[tuple[str, Callable[[], object]], ...] = (
        ("Kubernetes", kubernetes.binaries),
        ("what a kubelet needs", kubernetes.pod_binaries),
        ("kubectl and Helm", kube_tools),
        ("Prometheus", prometheus.binaries),
        ("the test guest", guest_files),
        ("the emulated host", nested_files),
    )
    for name, find in parts:
        say(f"Looking for {name}")
        find()


@main.command()
@click.argument("targets", nargs=-1, type=click.Choice(TARGETS))
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Folder of the archives; .dev/images.")
@click.option("--registry", default=REGISTRY, show_default=True, help="What the images' names start with.")
@click.option("--tag", default="", help="Their tag; virtfleet's version by default.")
@click.option("--base", default="", help="The image of Debian 12 to start from.")
@click.option("--builder", default="", type=click.Choice(["", "docker", "podman", "buildah"]), help="What builds.")
@click.option("--fresh", is_flag=True, help="Build everything anew, with the newest packages.")
def images(targets: tuple[str, ...], output: Path | None, **options: Any) -> None:
    """Build the container images, all or some, and write an archive of each."""
    order = Order(targets or TARGETS, **options)
    try:
        built = build_images(order, output or default_dev_dir() / "images", _say())
    except ImagesError as error:
        raise click.ClickException(str(error)) from None
    for image in built:
        _CONSOLE.print(f"{image.name}  {image.archive}", soft_wrap=True)


if __name__ == "__main__":
    main()
