"""The routes, one module per concept; each exports `router`."""
