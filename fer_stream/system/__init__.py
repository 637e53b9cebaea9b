"""What depends on the machine: calls of the operating system, cores, memory, folders, and optional packages."""
