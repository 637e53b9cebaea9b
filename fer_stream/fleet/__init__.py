"""The rules of a fleet of aggregators: who owns which cameras, and where captures and workers connect.

Nothing here uses sockets, clocks, threads or an engine: state machines take inputs, and return commands to carry out.
"""
