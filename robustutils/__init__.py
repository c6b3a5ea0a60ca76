"""Library of the book: what at least two chapters need.

What one paper needs stands in :mod:`robustutils.papers`, what makes a book of the chapters in :mod:`robustutils.book`, what
only a user's own model needs in :mod:`robustutils.tools`. A module is imported by its name:
``from robustutils import attacks``, ``from robustutils.papers.blind_spot import carlini``.
"""

__version__ = "0.1.0"
