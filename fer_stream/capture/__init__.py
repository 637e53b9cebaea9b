"""One camera: read pictures, stamp them, keep the freshest, encode it, and send it when asked."""
