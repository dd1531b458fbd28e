"""What a fit states: one type per approach, the vocabulary they share, and JSON to write them to and read them from."""
