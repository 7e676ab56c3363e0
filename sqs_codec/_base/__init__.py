"""What all rooms of the package stand on."""
