"""What the commands of ``fer-stream`` do; `fer_stream.cli` says which there are.

Each is a function of its parsed arguments that returns an exit code, or nothing where that is 0. They are imported
only when called.
"""
