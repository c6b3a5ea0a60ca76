"""*The Limitations of Adversarial Training and the Blind-Spot Attack* (Zhang et al. 2019, BS)."""

PROVIDES: dict[str, tuple[str, ...]] = {
    "models": ("kolter_wong_cifar", "preact_resnet18", "wrm_mnist"),
    "recipes": (
        *("kolter_wong", "wrm", "wrm_in_full", "madry_cifar10", "natural_cifar10"),
        *("madry_gtsrb", "natural_gtsrb", "kolter_wong_cifar10", "kolter_wong_in_full"),
    ),
}
"""Names that :mod:`robustutils.registry` finds here, by the module that knows them."""
