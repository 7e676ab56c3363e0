"""Type checks of programs that use this package."""
