"""Look over a data set before a run."""
