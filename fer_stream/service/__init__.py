"""`fer-stream run`: starts and supervises all processes on this machine, and passes events to sinks."""
