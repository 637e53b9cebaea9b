"""The HTTP API ``/api/v1``, which the live page's server offers beside the page, with the same token and checks.

::

    contract      operations, their parameters and answers; routes and the OpenAPI document are both made from it
    routes        serves the operations, and turns errors into answers
    events        pages of events, and server-sent events that can be resumed
    history       all events, as statistics need them
    recognition   finds faces in a picture that a request brings

It is made with Starlette, which serves the page, and pydantic, which has the settings. FastAPI is small (1 MB), but
most of what it does would have to be undone: its answers to bad input are lists of objects and not one sentence, it
would parse and write again the events, whose texts and schema exist already (`fer_stream.events.schema`), and its
pages of documentation load scripts from another server, which the page's security policy forbids. What is left of it
is the document, which takes 100 lines here (`contract.openapi`).
"""
