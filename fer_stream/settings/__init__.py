"""Settings: sections and defaults, the sources of values, and the checks of each kind of value."""
