"""One module for each thing that a user or an administrator can ask for."""
