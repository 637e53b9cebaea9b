"""What every process needs: signals, logs, metrics, an HTTP server, and the list of running services."""
