"""Tests of `sqs_codec.system.teacher`."""
