"""Intervals: resampled tables, the noise of losses, the bias of interpolation."""
