"""One language model, from tokens to a trained and scored run: the only folder that imports JAX."""
