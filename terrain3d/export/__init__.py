"""What others consume: STAC item, report, figures."""
