"""What a released version wrote, which every later one has to read."""
