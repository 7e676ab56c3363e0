"""Which setting suits which link, and what the presets lose to the best one."""
