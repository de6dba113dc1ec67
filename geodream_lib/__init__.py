"""GeoDream Lab: a prompt goes in, a textured, 3D-consistent mesh comes out, and every step can be read."""

__version__ = "0.1.0"
