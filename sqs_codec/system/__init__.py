"""Everything between two machines: sessions, ends, servers and engines."""
