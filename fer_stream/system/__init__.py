"""The machine's resources for a process: cores, memory, folders, and optional packages."""
