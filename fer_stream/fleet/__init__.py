"""The rules of a fleet of aggregators: who owns which cameras, and where captures and workers connect.

State machines take inputs, and return commands to carry out; they use no sockets, clocks, threads or engine. `link`
alone has a connection: it carries out the commands of the `seeker`.
"""
