"""What every request passes before its route. Plain ASGI, but for CORS, which is Starlette's.

Outermost first: CORS, security headers, context, turns, draining, API key, body limit.
"""
