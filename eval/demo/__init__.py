"""What the page does, measured without a browser."""
