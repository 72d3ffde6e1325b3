"""What validation tasks choose from."""
