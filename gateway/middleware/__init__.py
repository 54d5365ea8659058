"""What every request passes before its route, outermost first: context, draining, body limit. Plain ASGI."""
