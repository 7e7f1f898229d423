"""The options that every command has, spelled as kubectl spells them, before or after the command's name."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import click

from virtfleet_cli.cluster import Choice

_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Duration(click.ParamType[float]):
    """A time span as kubectl takes it: "90s", "2m", "1h"."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        if isinstance(value, int | float):
            return float(value)
        found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|)", value)
        if not found:
            self.fail(f"{value!r} is not a time span; write one such as 90s or 2m.", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


def _keep(field: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def keep(context: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            context.obj = replace(context.obj or Choice(), **{field: value})

    return keep


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --kubeconfig, --context and --namespace; what is given last, at the command, wins."""
    for names, field, text in (
        (("-n", "--namespace"), "namespace", "Namespace of the machine; that of the context by default."),
        (("--context",), "context", "Context of the kubeconfig."),
        (("--kubeconfig",), "kubeconfig", "Path of the kubeconfig; $KUBECONFIG or ~/.kube/config by default."),
    ):
        command = click.option(*names, expose_value=False, callback=_keep(field), help=text)(command)
    return command


def wait_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --wait and --timeout."""
    command = click.option(
        "--timeout", type=Duration(), default="120s", show_default=True, help="With --wait: give up after this time."
    )(command)
    return click.option("--wait", is_flag=True, help="Return once it has happened.")(command)


def await_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --wait/--no-wait and --timeout, for what people wait for unless they say otherwise."""
    command = click.option(
        "--timeout",
        type=Duration(),
        default="15m",
        show_default=True,
        help="Stop waiting after this time; what was asked for goes on.",
    )(command)
    return click.option(
        "--wait/--no-wait", default=True, show_default=True, help="Show how far it is, and return once it is done."
    )(command)


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add -o and --dry-run, as `kubectl create` has them."""
    command = click.option(
        "--dry-run",
        type=click.Choice(("none", "client", "server")),
        is_flag=False,
        flag_value="client",
        default="none",
        show_default=True,
        help="Create nothing: client only makes the manifest, server has the cluster check it.",
    )(command)
    return click.option(
        "-o", "--output", type=click.Choice(("yaml", "json", "name")), default=None, help="Print the object so."
    )(command)
