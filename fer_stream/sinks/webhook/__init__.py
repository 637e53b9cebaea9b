"""The webhook sink of ``fer-stream deliver``: sends events over HTTP, as the CloudEvents HTTP binding says.

::

    messages    events -> body and headers, and their signature
    client      a connection to the receiver, on which every wait has a limit
    sink        the options, what each answer means, and which events of a refused batch are refused
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_stream.system import extras

if TYPE_CHECKING:
    from fer_stream.settings.tree import DeliverSettings
    from fer_stream.sinks.webhook.sink import Webhook


def open_sink(argument: str, settings: DeliverSettings) -> Webhook:
    """Return a sink for the receiver at ``argument``, an ``http://`` or ``https://`` address.

    Raises:
        ConfigError: this is not such an address, or an option is not allowed.
        PluginError: urllib3 is not installed.
    """
    extras.require("urllib3", "webhook")
    from fer_stream.sinks.webhook.sink import Webhook  # noqa: PLC0415  (it needs urllib3)

    return Webhook(argument, settings.options)
