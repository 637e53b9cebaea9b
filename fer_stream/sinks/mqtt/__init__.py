"""The mqtt sink of ``fer-stream deliver``: events and the present state of each camera, over MQTT 5."""
