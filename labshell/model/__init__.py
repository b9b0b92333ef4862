"""Names, ports, settings, keys: values in, values out."""
