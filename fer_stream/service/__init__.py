"""`fer-stream run`: starts and supervises all processes on this machine, and gives events to sinks."""
