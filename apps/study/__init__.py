"""Whole tables in one command: which runs they need, who does them, what comes out (docs/study.md)."""
