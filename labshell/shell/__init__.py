"""The login shell: everything that runs as the user. The standard library only."""
