"""Tests of servers and transports."""
