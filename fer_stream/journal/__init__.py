"""The journal: an event log that is written before an event is published, and can be read from any cursor.

One process writes it, any number of processes read it. It stores the exact text that subscribers get, so that a replay
returns the same events. A store is a plug-in (`fer_stream.plugins.Journal`)::

    contents    common to all stores: numbers and texts of events, gaps, what a killed aggregator left open
    sqlite/     a file on this machine: the default, which needs no server
    nats/       a NATS JetStream server or cluster
"""

from fer_stream.journal.contents import another_journal, gap

__all__ = ["another_journal", "gap"]
