"""The decoder-only transformer as pure functions of parameters and tokens."""
