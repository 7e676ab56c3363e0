"""Engines on many machines by Ray Serve (the extra ``[ray]``).

* `RayEngine`: an `Engine` that hands its jobs to replicas of another one
* `app`: what a configuration file of Ray Serve names to deploy them
* `application`: the same for an engine of one's own
"""

from sqs_codec.system.ray._engine import RayEngine
from sqs_codec.system.ray._replica import app, application

__all__ = ["RayEngine", "app", "application"]
