"""Lists of the likeliest tokens, out of what servers answered."""
