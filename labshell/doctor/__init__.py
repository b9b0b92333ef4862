"""What is wrong with a user's container, and with the host; and what to do about it."""
