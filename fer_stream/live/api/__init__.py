"""The HTTP API ``/api/v1``, which the live page's server offers beside the page, with the same token and checks.

::

    contract      operations, their parameters and answers; routes and the OpenAPI document are both made from it
    routes        serves the operations, and turns errors into answers
    events        pages of events, and server-sent events that can be resumed
    history       all events, as statistics need them
    recognition   finds faces in a picture that a request brings

It is made with Starlette, which serves the page, and pydantic, which has the settings. FastAPI would add little: two
packages of 2 MB. But its answers to bad input are lists of objects and not one sentence, an event's schema exists
already (`fer_stream.events.schema`) and is not a pydantic model, and its own OpenAPI pages load scripts from other
servers, which the page's security policy forbids.
"""
