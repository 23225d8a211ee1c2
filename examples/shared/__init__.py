"""What the examples share: how one starts and stops, its secret, the look of a page."""
