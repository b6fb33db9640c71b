"""Everything HTTP: one installation into MONAI Label's router, checks and routes.

What a client sent is refused with FastAPI's ``HTTPException`` (400, 403, 404, 409 or 422), whose text names
the value, the limit and the remedy; ``error_responses`` answers the errors of the app itself.
"""
