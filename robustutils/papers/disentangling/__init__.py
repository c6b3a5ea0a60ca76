"""*Disentangling Adversarial Robustness and Generalization* (Stutz et al. 2019, DIS)."""

PROVIDES: dict[str, tuple[str, ...]] = {
    "models": ("dis_cnn", "dis_mlp", "dis_resnet13", "dis_vgg", "vae_gan", "vae_gan_narrow"),
    "data": ("fonts", "fonts_embedded"),
}
"""Names that :mod:`robustutils.registry` finds here, by the module that knows them."""
