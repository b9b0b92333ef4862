"""What the programs say to each other, and how it is written."""
