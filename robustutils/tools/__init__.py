"""What a user's own model, data or hand needs."""
