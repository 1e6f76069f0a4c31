"""The small engine: drafts that a small model corrects, a few seconds on a processor."""
