"""What kept distributions of a teacher take, and what students learn of them."""
