"""A plugin with unreadable entry points."""
