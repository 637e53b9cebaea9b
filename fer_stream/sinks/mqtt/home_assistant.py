"""What Home Assistant is told about a camera: a device with three entities, by MQTT discovery.

There is one message for each entity, which every version since 2024.3 reads. The rules are in
https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from fer_stream.sinks.mqtt.connection import Message
from fer_stream.sinks.mqtt.presence import NONE
from fer_stream.system.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX = "homeassistant"
"""Where Home Assistant looks for discovery messages, and announces its start, unless it is told otherwise."""

_ENTITIES = {"online": "binary_sensor", "faces": "sensor", "expression": "sensor"}
"""The component of each entity."""


def discovery(prefix: str, camera: str, labels: Sequence[str], *, status: str, state: str) -> list[Message]:
    """Return the messages about a camera.

    Args:
        prefix: Home Assistant's discovery prefix.
        camera: its name.
        labels: the expressions that are possible; there is no entity for them as long as they are unknown.
        status: the topic with ``online`` or ``offline``.
        state: the topic with the camera's state.
    """
    node = _node(status, camera)
    available = {"topic": status}
    known = "{{ 'offline' if value_json.online is false or value_json.faces is none else 'online' }}"
    shows = {"topic": state, "value_template": known}
    entities: dict[str, dict[str, Any]] = {
        "online": {
            "name": "Online",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
            "value_template": "{{ {true: 'ON', false: 'OFF'}.get(value_json.online, 'None') }}",
            "availability": [available],
        },
        "faces": {
            "name": "Faces in view",
            "icon": "mdi:face-recognition",
            "state_class": "measurement",
            "suggested_display_precision": 0,
            "value_template": "{{ value_json.faces }}",
            "availability": [available, shows],
        },
        "expression": {
            "name": "Prevailing expression",
            "icon": "mdi:emoticon-outline",
            "device_class": "enum",
            "options": [*dict.fromkeys([*labels, NONE])],
            # It is not available while the expression is null; 2024.3 would show a null as the text None.
            "value_template": f"{{{{ value_json.expression or '{NONE}' }}}}",
            "availability": [available, shows],
        },
    }
    common = {
        "state_topic": state,
        "qos": 1,
        "availability_mode": "all",
        "device": {
            "identifiers": [node],
            "name": camera,
            "manufacturer": "fer_stream",
            "model": "Camera",
            "sw_version": __version__,
        },
        "origin": {"name": "fer_stream", "sw_version": __version__},
    }
    return [
        Message(topic, json.dumps(entities[name] | common | {"unique_id": f"{node}_{name}"}).encode(), retain=True)
        for name, topic in _topics(prefix, node).items()
        if name != "expression" or labels
    ]


def removal(prefix: str, camera: str, *, status: str) -> list[Message]:
    """Return the messages that remove a camera's device."""
    return [Message(topic, b"", retain=True) for topic in _topics(prefix, _node(status, camera)).values()]


def births(prefix: str) -> set[str]:
    """Return the topics in which Home Assistant may announce its start: the second is the one it has by default."""
    return {f"{prefix}/status", f"{PREFIX}/status"}


def _topics(prefix: str, node: str) -> dict[str, str]:
    return {name: f"{prefix}/{component}/{node}/{name}/config" for name, component in _ENTITIES.items()}


def _node(status: str, camera: str) -> str:
    """Return a name of letters, digits, ``_`` and ``-`` that only this camera of this service has."""
    whole = f"{status.rpartition('/')[0]}/{camera}"
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", whole)
    ambiguous = plain != whole.replace("/", "_") or whole.count("/") > 1
    return f"{plain}_{hashlib.sha256(whole.encode()).hexdigest()[:6]}" if ambiguous else plain
