"""How the roles reach each other: ZeroMQ between processes, memory within one."""
