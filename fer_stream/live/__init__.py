"""The live page: shows cameras, faces, events and the service's status in a browser.

::

    aggregator -> [events, status] ---------------------> feed -> viewer (1 per browser) -> static/main.js
               -> [observations, preview: while watched] -> picture: pair, blur, JPEG -^

The page's server is a process of its own and an ordinary subscriber, so it may crash and restart at any time without
affecting the service. `access` decides which requests are served.
"""
