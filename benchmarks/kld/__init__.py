"""How far a model is from a reference: estimates beside dense sums and llama.cpp's."""
