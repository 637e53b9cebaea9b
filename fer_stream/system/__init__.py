"""What this machine offers a process: cores, memory, folders, and optional packages."""
