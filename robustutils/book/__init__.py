"""What makes a book of the chapters: claims, runs, results, pages."""
