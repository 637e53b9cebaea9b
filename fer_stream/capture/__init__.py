"""The capture of one camera: it reads and timestamps pictures, keeps the latest, and encodes and sends it when asked."""
