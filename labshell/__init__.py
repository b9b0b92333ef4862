"""labshell: each researcher's login shell on a shared GPU server, leading to their own LXD container."""

__version__ = "0.1.0"
