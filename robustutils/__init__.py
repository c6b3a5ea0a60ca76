"""Small shared library of the book: attacks, defences, training, evaluation and evidence.

Every module is one idea and is imported by its name, for example ``from robustutils import attacks``.
"""

__version__ = "0.1.0"

GROUPS = {
    "science": (
        *(
            "threats",
            "attacks",
            "square",
            "refereed",
            "carlini",
            "objectives",
            "strategies",
            "bounds",
            "models",
            "vae_gan",
            "defences",
            "training",
        ),
        *(
            "networks",
            "catalogue",
            "flags",
            "evaluation",
            "masking",
            "subspaces",
            "flips",
            "manifolds",
            "blind_spots",
            "examine",
        ),
        *("spheres", "invariance", "alignment", "l0", "synthesis", "sparse", "generative", "surrogate"),
        *("latent", "attempts", "projection", "curves", "data", "fonts"),
    ),
    "measure": ("outcomes", "statistics", "sanity", "pieces", "checks"),
    "judge": ("claims", "criteria", "results", "study"),
    "show": ("figures", "tables", "scoreboard", "labelling", "sliders"),
    "run": ("parameters", "runs", "provenance", "artifacts", "storage", "speed"),
}
"""The public modules by what they are for, as the API pages list them; pipeline and command line stand beside them."""
