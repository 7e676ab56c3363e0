"""The planner compared with the best fixed plan, on simulated links."""
