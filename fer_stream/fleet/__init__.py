"""The rules of a fleet of aggregators: who owns which cameras, and where captures and workers connect.

State machines take inputs, and return commands to carry out; they use no sockets, clocks, threads or engine. Two modules
meet the world: `driver` an engine and the time (`fer_stream.journal.nats.engine` is the engine), `link` a connection, on
which it carries out the commands of the `seeker`.
"""
