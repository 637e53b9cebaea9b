"""Agreement of raters who coded the same films: `compare` computes it, `command` runs `fer-stream agree`."""
