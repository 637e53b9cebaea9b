"""The rules of a fleet of aggregators: who owns which cameras, and where captures and workers connect.

They are state machines without sockets, clocks, threads and engine: they take inputs, and return commands. `driver` is
where they meet an engine and the time; `fer_stream.journal.nats.engine` is the engine.
"""
