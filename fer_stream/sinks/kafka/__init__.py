"""The kafka sink of ``fer-stream deliver``: writes events to a topic of Kafka."""
