"""What both halves share: configurations, counts, results, and the files of a run. Imports no half."""
