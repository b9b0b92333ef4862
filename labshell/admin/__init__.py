"""labshell-admin: what an administrator types, and what of it runs in this process."""
