"""KL divergence from a reference, compared with dense sums and llama.cpp's figures."""
