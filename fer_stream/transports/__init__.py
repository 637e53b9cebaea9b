"""The transport that connects the roles: ZeroMQ sockets between processes, with access keys over a network."""
