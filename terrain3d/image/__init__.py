"""Views, which are images with their cameras: their geometry, colour and sun, and cubic interpolation."""
