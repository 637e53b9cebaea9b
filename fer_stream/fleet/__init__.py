"""The rules of a fleet: which aggregator owns which cameras, which machine captures them, where peers connect.

State machines take inputs, and return commands to carry out; they use no sockets, clocks, threads or engine. Two
modules meet the world. `driver` gives a `Member` the time and an engine, such as `fer_stream.journal.nats.engine`.
`link` gives a `Seeker` a connection. `commons` is the interface to what operators and nodes share.
"""
