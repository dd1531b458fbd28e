"""Training: a `RunConfig` goes in, an `Outcome` comes out."""
