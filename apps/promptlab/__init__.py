"""The page that shows what prompts do."""
