"""Small shared library of the book: attacks, defences, training, evaluation and evidence.

Every module is one idea and is imported by its name, for example ``from robustutils import attacks``.
"""

__version__ = "0.1.0"
