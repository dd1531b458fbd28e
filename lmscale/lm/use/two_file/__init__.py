"""A trained run as one file of parameters and one readable program that needs NumPy only."""
