"""The host: one module for each outside thing."""
