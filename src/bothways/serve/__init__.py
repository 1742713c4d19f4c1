"""Models behind HTTP: the batcher, the routes, the page, and clients for them."""
