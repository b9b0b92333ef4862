"""Which firewall rules there should be, and how they get there."""
