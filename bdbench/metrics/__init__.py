"""Metrics: pure functions of what a model answered on the test images, one per file."""
