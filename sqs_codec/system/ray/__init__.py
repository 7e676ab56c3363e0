"""Engines on many machines with Ray Serve (the extra ``[ray]``).

* `RayEngine`: an `Engine` that sends its jobs to replicas of another engine
* `app`: the application to name in a Ray Serve configuration file
* `application`: the same for a custom engine
"""

from sqs_codec.system.ray._engine import RayEngine
from sqs_codec.system.ray._replica import app, application

__all__ = ["RayEngine", "app", "application"]
