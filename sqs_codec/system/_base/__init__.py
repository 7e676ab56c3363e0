"""Code that packages of the system share."""
