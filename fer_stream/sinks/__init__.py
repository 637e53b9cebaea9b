"""Where events go (`fer_stream.plugins.Sink`)."""
