"""What a model is worth: validation loss, and scores on tasks."""
