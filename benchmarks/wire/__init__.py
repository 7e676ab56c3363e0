"""Bytes on the wire of a round over each transport, including headers and ACKs.

* `~benchmarks.wire.capture`: count the packets of a port on the loopback interface
"""
