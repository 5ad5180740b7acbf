"""Data sets from elsewhere, written in the layout that runs read: `python -m dataset.convert --help`."""
