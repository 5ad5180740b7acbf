"""Whole tables of runs in one command."""
