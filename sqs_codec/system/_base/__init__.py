"""What rooms of the system share."""
