"""The included sinks, which write events to a file or to standard output (`fer_stream.plugins.Sink`)."""
