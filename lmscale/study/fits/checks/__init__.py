"""What could make a fit wrong, each check a status sentence."""
