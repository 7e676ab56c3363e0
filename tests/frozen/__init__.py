"""Files of released versions, which every later version has to read."""
