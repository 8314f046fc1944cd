"""Leaderboards: submissions and cards to ranked tables and the page."""
