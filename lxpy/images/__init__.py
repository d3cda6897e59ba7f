"""The image manager: store, simplestreams, recipes, templates."""
