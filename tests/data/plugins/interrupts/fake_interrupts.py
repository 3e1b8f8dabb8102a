"""The user presses Ctrl-C while this is imported."""

raise KeyboardInterrupt
