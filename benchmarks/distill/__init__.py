"""The size of stored teacher distributions, and what students learn from them."""
