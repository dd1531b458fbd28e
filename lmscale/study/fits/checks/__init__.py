"""What could make a fit wrong: each check is a status with a sentence."""
