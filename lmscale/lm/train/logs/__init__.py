"""Where the metrics of a run go: a JSONL file always, Weights & Biases and TensorBoard when asked."""
