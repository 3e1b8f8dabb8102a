"""What an engine is: plugin family three. The engines themselves live in `qlearn.integer`."""
