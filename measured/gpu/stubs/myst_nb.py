"""Stands in for myst_nb where no page is rendered."""


def glue(name, variable, display=True):
    pass
