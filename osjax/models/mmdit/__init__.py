"""The multimodal diffusion transformer."""
