"""The prompt lab, app.py's parts: what is computed (lab), opened (opening), asked for (desk) and shown (views)."""
