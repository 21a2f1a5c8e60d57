"""The causal HunyuanVideo autoencoder: 4x8x8 compression, 16 latent channels."""
