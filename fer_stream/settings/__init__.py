"""Settings: their sections and defaults, where values come from, and the checks of each kind of value."""
