"""The command ``node``, which does one machine's part of a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_stream.cli.options import begin

if TYPE_CHECKING:
    from argparse import Namespace


def node(arguments: Namespace) -> int:
    """Run this machine's node.

    Raises:
        ConfigError: as `fer_stream.service.node.run`, or ``--bind`` is no address.
    """
    from fer_stream.service.node import run  # noqa: PLC0415
    from fer_stream.service.supervisor import NodeRoles  # noqa: PLC0415
    from fer_stream.settings import tree  # noqa: PLC0415

    settings = begin(arguments, "node")
    aggregator = None
    if arguments.own_aggregator is not None:
        flags, names = {"address": arguments.own_aggregator}, {"address": "flag --bind"}
        address = tree.explain(flags, arguments.config, names).settings.address
        aggregator = settings.model_copy(update={"address": address})
    return run(settings, NodeRoles(aggregator, arguments.own_workers))
