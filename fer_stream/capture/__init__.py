"""The capture of one camera: it reads and timestamps pictures, keeps the latest one, and sends it when asked."""
