"""Bytes on the wire: what a round costs by each transport, headers and ACKs included.

* `~benchmarks.wire.capture`: count the packets of a port on the loopback interface
"""
