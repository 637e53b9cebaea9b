"""Parts that every process uses: signals, logs, metrics, an HTTP server, and the list of running services."""
