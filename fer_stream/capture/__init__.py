"""The capture of one camera: read pictures, stamp them, keep the latest, encode it, and send it on request."""
