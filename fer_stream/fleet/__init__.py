"""The rules of a fleet of aggregators: who owns which cameras, and where captures and workers connect.

State machines take inputs, and return commands to carry out; they use no sockets, clocks, threads or engine. Two
modules meet the world. `driver` gives a `Member` the time and an engine, such as `fer_stream.journal.nats.engine`.
`link` gives a `Seeker` a connection.
"""
