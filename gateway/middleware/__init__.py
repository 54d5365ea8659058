"""What every request passes before its route. Plain ASGI, but for CORS, which is Starlette's.

Outermost first: CORS, security headers, tracing (where it is on), context, turns, draining, API key,
body limit, the direct way to hot routes.
"""
