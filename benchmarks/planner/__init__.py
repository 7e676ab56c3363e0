"""How near the planner comes to the best fixed plan, on simulated links."""
