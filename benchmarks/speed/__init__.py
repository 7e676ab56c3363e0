"""Times of every call, compared with alternatives and the lower bound."""
