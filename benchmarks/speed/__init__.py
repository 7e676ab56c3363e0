"""Time of every call, against other ways to do it and the floor."""
