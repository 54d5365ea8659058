"""HTTP routes: they check the shape of a request, hand it on and shape the answer."""
