"""*Exploiting Excessive Invariance* (Jacobsen et al. 2020, INV)."""

PROVIDES: dict[str, tuple[str, ...]] = {
    "models": (
        *("abs_mnist", "acgan_mnist", "acgan_mnist_narrow", "binary_abs_mnist"),
        *("inv_cnn", "l0_sparse_mnist", "resnet_mnist"),
    ),
    "recipes": (
        *("madry_l2", "inv_cnn", "inv_cnn_in_full", "resnet", "affine_cnn", "abs", "binary_abs"),
        *("l0_sparse", "crown_ibp", "acgan", "acgan_in_full"),
    ),
}
"""Names that :mod:`robustutils.registry` finds here, by the module that knows them."""
