"""The plug-in for requests; imported only if requests is installed."""

from __future__ import annotations

from functools import partial
from typing import Any

import requests
from requests.auth import AuthBase

from ._bearer import Bearer, is_curable
from .client import Client


class RequestsAuth(AuthBase):
    """See :func:`ghl_oauth.requests_auth`."""

    def __init__(self, client: Client, resource_id: str) -> None:
        self._bearer = Bearer(client, resource_id)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Adds the header to a request."""
        header = self._bearer.header()
        request.headers["Authorization"] = header
        request.register_hook(
            "response", partial(self._on_response, header, _body_start(request.body))
        )
        return request

    def _on_response(
        self, header: str, body_start: int | None, response: requests.Response, **send_options: Any
    ) -> requests.Response:
        # After a redirect to another host, requests drops the token; that host must not get a new
        # one.
        if response.status_code != 401 or response.request.headers.get("Authorization") != header:
            return response
        if not is_curable(response.status_code, response.text):
            return response
        renewed = self._bearer.renew(header)
        repeat = response.request.copy()
        if renewed is None or not _rewind(repeat.body, body_start):
            return response
        response.close()
        repeat.headers["Authorization"] = renewed
        answer: requests.Response = response.connection.send(repeat, **send_options)
        answer.history.append(response)
        answer.request = repeat
        return answer


def _body_start(body: Any) -> int | None:
    try:
        start: int = body.tell()
    except (AttributeError, OSError):
        return None
    return start


def _rewind(body: Any, start: int | None) -> bool:
    """Rewinds a body for a repetition; False if it is a stream that cannot be rewound."""
    if body is None or isinstance(body, (str, bytes)):
        return True
    if start is None:
        return False
    try:
        body.seek(start)
    except (AttributeError, OSError):
        return False
    return True
