"""What comes out of a study: tables, a page, a leaderboard."""
