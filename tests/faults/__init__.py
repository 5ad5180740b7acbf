"""Bad inputs: tables of them, each refused with one line.

A module here that has a function `cases` is a table; `python -m tests.faults --all` runs all of them and counts.
"""
