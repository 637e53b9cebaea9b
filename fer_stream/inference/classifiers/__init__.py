"""What they seem to express."""
