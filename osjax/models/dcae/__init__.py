"""The Video DC-AE: a high-compression autoencoder, 4x in time and 32x in space (Open-Sora opensora/models/dc_ae)."""
