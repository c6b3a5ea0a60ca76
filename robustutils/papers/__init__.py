"""The papers of the book, side by side; none imports another."""
