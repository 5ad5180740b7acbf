"""Fetch data sets."""
