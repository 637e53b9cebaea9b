"""The pages on MQTT and Home Assistant say what the sink does."""

from __future__ import annotations

import json
import re

import yaml
from documents import ROOT, blocks

from fer_stream.sinks.mqtt.home_assistant import discovery
from fer_stream.sinks.mqtt.options import MqttOptions
from fer_stream.sinks.mqtt.presence import read

MQTT, HOME = (ROOT / "docs/how-to" / name for name in ("deliver-mqtt.md", "home-assistant.md"))


def test_the_state_on_the_page_is_one() -> None:
    (block,) = (block for block in blocks(MQTT) if block.language == "json")
    assert read(block.text.encode()) is not None


def test_the_page_has_every_option() -> None:
    rows = re.findall(r"^\| (`.+?`) \| ", MQTT.read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(MqttOptions.model_fields) == {name for name in named if name in MqttOptions.model_fields}


def test_the_automations_use_entities_and_topics_that_there_are() -> None:
    (block,) = (block for block in blocks(HOME) if block.language == "yaml")
    told = discovery("homeassistant", "door", ["happy"], status="fer_stream/status", state="fer_stream/door/state")
    entities = {}
    for message in told:
        one = json.loads(message.payload)
        name = f"{one['device']['name']} {one['name']}".lower().replace(" ", "_")
        entities[f"{message.topic.split('/')[1]}.{name}"] = one
    assert set(re.findall(r"^\| `((?:binary_)?sensor\.\w+)` \|", HOME.read_text(), re.MULTILINE)) == set(entities)
    triggers = [trigger for automation in yaml.safe_load(block.text) for trigger in automation["trigger"]]
    assert {one["entity_id"] for one in triggers if one["platform"] == "state"} <= set(entities)
    assert [one["topic"] for one in triggers if one["platform"] == "mqtt"] == ["fer_stream/door/emotion/started"]
    happy = next(one for one in triggers if one.get("to") == "happy")
    assert happy["to"] in entities[happy["entity_id"]]["options"]
