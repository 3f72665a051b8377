"""Tangent space: Lyapunov exponents, covariant vectors, alignment indices, sharpness."""
