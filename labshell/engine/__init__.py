"""The container engine: all that knows LXD."""
