"""The client: one app, its tokens, and its connections to the API."""

from __future__ import annotations

import math
import os
import sys
import weakref
from collections.abc import Mapping

from ._boundary import encode, encode_id
from ._handle import Handle, StoreHandle
from ._lazy_module import LazyModule
from ._library import library
from ._names import Names
from .errors import InvalidArgument

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    import base64
    import json
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from types import TracebackType
    from typing import Any, Callable, Protocol, TypeVar

    from . import models
    from .models import (
        Adoption,
        AuthorizationUrl,
        Event,
        FailedToken,
        ImportResult,
        Location,
        Maintenance,
        MaintenanceProgress,
        Minting,
        MintProgress,
        Response,
        Statistics,
        Token,
        TokenInfo,
        TokenState,
        Webhook,
        WebhookOutcome,
    )
    from .pages import Pages
    from .progress import ProgressBar, ProgressDisplay
    from .store import Store

    Item = TypeVar("Item")

    class Headers(Protocol):
        """The part of a header mapping that this package uses: a dict, or a framework's own."""

        def items(self) -> Iterable[tuple[str, str]]:
            """Names with their values."""
            ...

else:
    base64, json = LazyModule("base64"), LazyModule("json")
    models = LazyModule(f"{__package__}.models")


class Client:
    """Keeps an app's tokens valid and hands them out.

    ::

        config = {"client_id": "…", "client_secret": "…", "redirect_uri": "https://…"}
        with Client(**config, store="tokens.db") as client:
            link = client.authorization_url(scopes=["contacts.readonly"])
            # the user opens link.url and consents; the browser is redirected to redirect_url
            info = client.authorization_complete(redirect_url)
            token = client.access_token(info.resource_id)  # from now on, for years

    Any number of threads may call any method at once; the GIL is released during a call. Every
    method raises the subclass of :class:`GhlError` that fits the failure, or ``ValueError`` if the
    client is closed; the methods list only errors that need an explanation. A call takes at most
    ``timeouts["total_seconds"]``, or its own ``timeout``.

    Ctrl-C and other signals whose handler raises end a call on the main thread at once; only a
    refresh that was sent is finished and saved first. :meth:`cancel` ends calls on any thread.
    :class:`ghl_oauth.aio.Client` is this class for asyncio.

    After ``os.fork`` the child may keep using the client.

    Close the client when you are done, or use it in a ``with`` statement: a new token that the
    store refused exists only in memory, and :meth:`close` retries the save one last time. The exit
    of the interpreter does so too, but ``os._exit`` and a fatal signal skip it.
    """

    # The handle of a closed client, which exists until its last call has ended.
    _released: weakref.ref[Handle] | None = None

    def __init__(
        self,
        client_id: str,
        client_secret: str | None = None,
        *,
        client_secret_file: str | os.PathLike[str] | None = None,
        redirect_uri: str | None = None,
        scopes: Sequence[str] | str | None = None,
        store: Store | str | os.PathLike[str] | Mapping[str, Any] = "memory",
        base_url: str | None = None,
        authorize_url: str | None = None,
        api_version: str | None = None,
        token_request_encoding: str | None = None,
        timeouts: Mapping[str, Any] | None = None,
        retry: Mapping[str, Any] | None = None,
        rate_limit: Mapping[str, Any] | None = None,
        refresh: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
        http: Mapping[str, Any] | None = None,
        webhook: Mapping[str, Any] | None = None,
        consent_page: Mapping[str, str] | None = None,
    ) -> None:
        """Creates a client.

        Only the id and the secret, or its file, are required; None means the default, except for
        ``store``. The keys of the mappings may be written in snake_case or in the library's
        camelCase. Durations are in seconds; the library's own keys in milliseconds (``total_ms``)
        work as well.

        Args:
            client_id: The app's client id, ``<appId>-<suffix>``.
            client_secret: The app's client secret.
            client_secret_file: A file with the client secret, instead of ``client_secret``. It is
                read once; line ends around the secret are ignored. Default: none.
            redirect_uri: The redirect URI of the app. Default: none; each call must then name it.
            scopes: The scopes to request, as a sequence or separated by spaces. Default: none; each
                call must then name them.
            store: Where tokens are kept: ``"memory"`` (the default; tokens are lost when the client
                ends), the path of an SQLite file, the URL of a PostgreSQL database
                (``postgres://…``, if the library was built with that feature), the library's own
                form (``{"kind": "sqlite", "path": "tokens.db"}``), or a :class:`Store`. None is an
                error, so that an unset variable does not silently select the memory store.
            base_url: The base URL of the API; may contain a path prefix. Default:
                ``https://services.leadconnectorhq.com``.
            authorize_url: The consent page. Default:
                ``https://marketplace.gohighlevel.com/v2/oauth/chooselocation``.
            api_version: The value of the ``Version`` header. Default: ``"v3"``.
            token_request_encoding: ``"form"`` (the default) or ``"json"``.
            timeouts: ``connect_seconds`` (default 10) for name lookup, connection and TLS;
                ``answer_seconds`` (default 12) for one attempt to refresh; ``total_seconds``
                (default 30) for a whole call, including waits and retries.
            retry: ``max_attempts`` (default 3), ``base_delay_seconds`` (default 0.2) and
                ``max_delay_seconds`` (default 5).
            rate_limit: The API's limit per company or location: ``requests`` (default 100) in any
                window of ``per_seconds`` (default 10), and ``per_day`` (default 200,000).
            refresh: ``margin_seconds`` (default 300): a token is renewed at the latest this long
                before it expires; ``runway_percent`` (default 25): maintenance renews it once less
                than this part of its life is left.
            limits: ``response_bytes`` (default 1,048,576): the longest response that is read.
            http: ``proxy``, ``no_proxy`` (a list of hosts that are reached without it: names,
                ``.suffixes``, addresses, networks, or ``*``), ``ca_bundle_path`` (a PEM file of
                root certificates to trust in addition to the platform's own),
                ``user_agent_suffix`` and ``allow_insecure_http`` (plain HTTP to hosts other than
                this machine).
            webhook: ``ed25519_public_keys`` (default: the vendor's) and ``rsa_public_keys``
                (default: none), lists of keys in PEM, hex or base64; ``max_age_seconds`` (default:
                any age).
            consent_page: The page that the browser shows after :meth:`authorization_listen`:
                ``language`` (``"en"``, the default, or ``"es"``), ``title``, ``message``,
                ``failure_title`` and ``failure_message`` (plain text), and ``color``
                (``"#rrggbb"``).

        Raises:
            InvalidArgument: A key is unknown, missing or mistyped; ``parameter`` names it.
            ConfigError: A value cannot be used; ``parameter`` names its key.
            StoreError: The store cannot be opened.
        """
        self._client_id = client_id
        self._handle: Handle | None = None
        custom = _custom(store)
        written: dict[str, str] = {}
        config = {
            "clientId": client_id,
            "clientSecret": client_secret,
            "clientSecretFile": None
            if client_secret_file is None
            else os.fspath(client_secret_file),
            "redirectUri": redirect_uri,
            "scopes": _words(scopes),
            "store": None if custom else _store(store, written),
            "baseUrl": base_url,
            "authorizeUrl": authorize_url,
            "apiVersion": api_version,
            "tokenRequestEncoding": token_request_encoding,
            "timeouts": _in_camel_case("timeouts", timeouts, written),
            "retry": _in_camel_case("retry", retry, written),
            "rateLimit": _in_camel_case("rate_limit", rate_limit, written),
            "refresh": _in_camel_case("refresh", refresh, written),
            "limits": _in_camel_case("limits", limits, written),
            "http": _in_camel_case("http", http, written),
            "webhook": _in_camel_case("webhook", webhook, written),
            "consentPage": _in_camel_case("consent_page", consent_page, written),
        }
        self._begin(config, custom, Names(written))

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any] | str | os.PathLike[str], store: Store | None = None
    ) -> Client:
        """Creates a client from the library's configuration document, or from a file with it.

        ::

            client = Client.from_config("config.json")

        A file is read as by the command line: ``clientSecretFile`` may name a file with the client
        secret, the environment variable ``GHL_OAUTH_CLIENT_SECRET`` replaces both, relative paths
        start at the file's folder, and without ``store`` tokens are kept in ``tokens.db`` there. A
        secret that other users can read is reported as a warning in the log.

        Args:
            config: The path of a JSON file, or the document: the keys and defaults of
                docs/configuration.md, in camelCase. ``clientId`` and ``clientSecret`` are required.
            store: A store written in Python, used instead of the configured one. Of the configured
                store only ``sealedOnly`` applies, and ``encryptionKeys`` or ``encryptionKeysPath``
                if this store has no ``encryption_keys``. Default: none.

        Raises:
            InvalidArgument: A key is unknown, missing or mistyped, or ``"store"`` is ``None``;
                ``parameter`` names it.
            ConfigError: A value cannot be used; ``parameter`` names its key. Or the file cannot be
                read.
            StoreError: The store cannot be opened.
        """
        if isinstance(config, (str, os.PathLike)):
            # Imported here because only few programs need it.
            from . import _log
            from ._configuration import read

            configuration = read(config)
            for warning in configuration.warnings:
                _log.warn(warning)
            config = configuration.document
        if store is None and "store" in config and config["store"] is None:
            raise _no_store()
        client = cls.__new__(cls)
        client._client_id = str(config.get("clientId", ""))
        client._handle = None
        client._begin(config, store, Names(None))
        return client

    def _begin(self, config: Mapping[str, Any], store: Store | None, names: Names) -> None:
        # Imported here because logging takes a large part of the package's import time.
        from . import _log

        _log.connect()
        if store is None:
            self._handle = Handle(encode(config), names)
        else:
            configured = config.get("store") or {}
            sealing = ("encryptionKeys", "encryptionKeysPath", "sealedOnly")
            kept: dict[str, Any] = {key: configured[key] for key in sealing if key in configured}
            if store.encryption_keys:
                kept.pop("encryptionKeysPath", None)
                kept["encryptionKeys"] = list(store.encryption_keys)
            kept["kind"] = "callbacks"
            self._handle = StoreHandle(encode({**config, "store": kept}), store, names)

    def __repr__(self) -> str:
        closed = ", closed" if self._handle is None else ""
        return f"<ghl_oauth.Client {self._client_id!r}{closed}>"

    def __enter__(self) -> Client:
        self._open()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Releases the client; every later call raises ``ValueError``. May be called repeatedly.

        Calls that still run on other threads finish normally, and the last of them frees the
        client; :meth:`cancel` ends them at once, before or after this call.

        The save of a new token that the store refused is retried for up to five seconds. If the
        store still refuses it, an error in the log names the resource.
        """
        handle = self._handle
        if handle is not None:
            self._released = weakref.ref(handle)
            self._handle = None

    def cancel(self, call_id: str | None = None) -> None:
        """Ends calls in progress with :class:`Cancelled`; later calls are not affected.

        Works until the last call has ended, even if the client is closed.

        Args:
            call_id: Only calls that were given this id. Default: every call.

        A refresh whose request was sent continues on its own thread until the response is saved:
        its refresh token is spent, and the response contains the only successor.
        """
        handle = self._handle or (self._released and self._released()) or self._open()
        if call_id is None:
            handle.cancel()
        else:
            handle.cancel_call(call_id)

    def stats(self) -> Statistics:
        """Statistics of this client in this process, for monitoring; never a secret.

        For figures about all stored tokens, see :meth:`metrics`.
        """
        return models.Statistics.from_json(self._call(library.ghl_client_stats))

    def metrics(self, *, timeout: float | None = None, call_id: str | None = None) -> str:
        """Metrics in Prometheus' text format, for your program's own endpoint; never a secret.

        Serve the text with the content type :data:`METRICS_CONTENT_TYPE`. The metrics of stored
        tokens come from the store, so every process that shares it reports the same; the other
        metrics are counters of this client. Reads every record, but writes nothing and sends
        nothing; 100,000 tokens take about a second.

        Args:
            timeout: Seconds until the call ends. Default: the configured ``total_seconds``.
            call_id: An id for :meth:`cancel`.

        Returns:
            The text. If the store cannot be read in time, ``ghl_oauth_store_up`` is 0 and only the
            counters follow.
        """
        options = {"timeoutMs": milliseconds(timeout), "callId": call_id}
        text: str = self._open().call_with(library.ghl_client_metrics, options, read=bytes.decode)
        return text

    def on_event(self, listener: Callable[[Event], None] | None) -> None:
        """Sets the function that receives this client's token events, or removes it if None.

        The function is called on a thread that is inside a call, and that call waits for it: hand
        longer work to another thread. It may use the client. An exception that it raises goes to
        ``sys.unraisablehook``; the interrupted call is not affected.

        Args:
            listener: The function, or None. A previous function that is still running finishes
                normally.
        """
        handle = self._open()
        names = handle.names
        handle.listen(
            None
            if listener is None
            else lambda event: listener(models.Event.from_json(event, names))
        )

    # Authorization code flow.

    def authorization_url(
        self,
        *,
        scopes: Sequence[str] | str | None = None,
        redirect_uri: str | None = None,
        version_id: str | None = None,
        login_in_same_tab: bool | None = None,
        state: str | None = None,
    ) -> AuthorizationUrl:
        """Builds the URL of the consent page.

        Args:
            scopes: As a sequence or separated by spaces. Default: the configured ones.
            redirect_uri: Default: the configured one.
            version_id: The app's version; a private app may need it.
            login_in_same_tab: Whether the login stays in the same browser tab. Default: False.
            state: Your own ``state``. Default: 256 random bits.

        Raises:
            InvalidArgument: Scopes or redirect URI are neither given nor configured, or malformed.
        """
        wanted = {
            "scopes": _words(scopes),
            "redirectUri": redirect_uri,
            "versionId": version_id,
            "loginInSameTab": login_in_same_tab,
            "state": state,
        }
        # It never waits.
        link = self._call(library.ghl_authorization_url, encode(wanted))
        return models.AuthorizationUrl.from_json(link)

    def authorization_complete(
        self,
        redirect_url: str,
        *,
        state: str | None = None,
        allow_missing_state: bool | None = None,
        redirect_uri: str | None = None,
        user_type: str | None = None,
        timeout: float | None = None,
        call_id: str | None = None,
    ) -> TokenInfo:
        """Checks the redirect from the consent page, exchanges its code, and stores the token.

        Args:
            redirect_url: The full URL to which the browser was redirected, including the query.
            state: The ``state`` of this browser session; required if another process built the URL.
                Default: the state of any URL that this client built.
            allow_missing_state: Accept a redirect without ``state``, as sent for an installation
                that was started inside the marketplace. Default: False.
            redirect_uri: The redirect URI of the URL, if another process built it with one that is
                not configured.
            user_type: The kind of token to request, ``"Company"`` or ``"Location"``. Default: the
                kind that the installation yields.
            timeout: As for :meth:`request`.
            call_id: As for :meth:`request`.

        Raises:
            ConsentDenied: The user, or the marketplace, refused.
            StateMismatch: The ``state`` is missing, unknown, expired or already used.
            ReauthorizationRequired: The API refuses the code; start again with a new URL.
            InvalidArgument: The URL is not this app's redirect.

        Unless the API has rejected the code, the same redirect may be passed again after an error.
        """
        info = self._call_with(
            library.ghl_authorization_complete,
            redirectUrl=redirect_url,
            state=state,
            allowMissingState=allow_missing_state,
            redirectUri=redirect_uri,
            userType=user_type,
            timeoutMs=milliseconds(timeout),
            callId=call_id,
        )
        return models.TokenInfo.from_json(info)

    def authorization_listen(
        self,
        *,
        port: int | None = None,
        timeout: float | None = None,
        timeout_ms: int | None = None,
        state: str | None = None,
        allow_missing_state: bool | None = None,
        redirect_uri: str | None = None,
        user_type: str | None = None,
        call_id: str | None = None,
    ) -> TokenInfo:
        """Waits for the redirect on a loopback port, then completes the consent.

        For development and for programs without a web server: point an HTTPS tunnel from the
        redirect URI to the port, show the user the URL of :meth:`authorization_url`, and call this
        method. It listens on 127.0.0.1 only. The first redirect with the expected ``state`` ends
        the wait: the browser shows a page with the result (``consent_page``), and the port is
        closed. Everything else is refused without ending the wait.

        Args:
            port: Default: the port of the redirect URI, if that is ``http`` on ``localhost`` or
                ``127.0.0.1``; required behind a tunnel.
            timeout: How long to wait for the browser, in seconds, at most 3,600. Default: 300.
            timeout_ms: The same in milliseconds, instead of ``timeout``.
            state: As for :meth:`authorization_complete`.
            allow_missing_state: As for :meth:`authorization_complete`. With it, any page in the
                user's browser can end the wait and inject its own code.
            redirect_uri: The redirect URI of the URL. Default: the configured one.
            user_type: As for :meth:`authorization_complete`.
            call_id: As for :meth:`request`.

        Raises:
            Timeout: No redirect arrived.
            Cancelled: :meth:`cancel` was called.
            InvalidArgument: A parameter cannot be used, or the port is in use; ``parameter`` names
                it.
            ConsentDenied, ReauthorizationRequired: As for :meth:`authorization_complete`.
        """
        if timeout is not None:
            if timeout_ms is not None:
                raise TypeError("timeout and timeout_ms are the same; give one of them")
            timeout_ms = milliseconds(timeout)
        info = self._call_with(
            library.ghl_authorization_listen,
            port=port,
            timeoutMs=timeout_ms,
            state=state,
            allowMissingState=allow_missing_state,
            redirectUri=redirect_uri,
            userType=user_type,
            callId=call_id,
        )
        return models.TokenInfo.from_json(info)

    # Token manager.

    def access_token(
        self,
        resource_id: str,
        *,
        min_valid: float | None = None,
        timeout: float | None = None,
        call_id: str | None = None,
    ) -> str:
        """Returns a valid access token for a company or location.

        Ask before each use and do not keep the token. Usually the call is answered from memory. If
        the token is due, one caller renews it, across threads and processes, while the others wait
        for the result. A location that was installed through its company gets its first token here.

        Args:
            resource_id: The id of the company or location.
            min_valid: How many seconds the token must be valid at least, for instance for a long
                upload. A token with less time left is renewed; if that fails, the error is raised.
                A token that was granted within the last minute is returned even if its whole life
                is shorter. Default: until the next renewal.
            timeout: As for :meth:`request`.
            call_id: As for :meth:`request`.

        Raises:
            NotFound: No token is held, and no company token that could mint one.
            ReauthorizationRequired: The connection is lost: a user must consent again.
            LocationInactive: The location is paused; its refresh token is kept.
            RateLimited, NetworkError, Timeout, ServerError, ProtocolError, StoreError: The renewal
                failed and the old token has expired.
        """
        handle = self._handle
        if handle is None:
            handle = self._open()
        token = handle.token_in_memory(resource_id) if min_valid is None else None
        if token is None:
            token = handle.access_token(
                {
                    "resourceId": encode_id(resource_id).decode(),
                    "minValidSeconds": whole_seconds(min_valid),
                    "timeoutMs": milliseconds(timeout),
                    "callId": call_id,
                }
            )
        return token

    def token_refresh(
        self, resource_id: str, *, timeout: float | None = None, call_id: str | None = None
    ) -> TokenInfo:
        """Renews a token now, even if it is fresh.

        Use it if the API rejects a token before it expires.

        Args:
            resource_id: The id of the company or location.
            timeout: As for :meth:`request`.
            call_id: As for :meth:`request`.

        Raises:
            GhlError: As for :meth:`access_token`; here a valid old token does not hide a failure.
        """
        return models.TokenInfo.from_json(
            self._call_with(
                library.ghl_token_refresh_with,
                resourceId=encode_id(resource_id).decode(),
                timeoutMs=milliseconds(timeout),
                callId=call_id,
            )
        )

    def token_delete(self, resource_id: str) -> TokenInfo:
        """Deletes a token from memory and store, and returns its metadata. The API is not notified.

        Args:
            resource_id: The id of the company or location.

        Raises:
            NotFound: No token is held for it.
        """
        return models.TokenInfo.from_json(
            self._open().call_without(library.ghl_token_delete, encode_id(resource_id))
        )

    def tokens_list(
        self,
        *,
        company_id: str | None = None,
        user_type: str | None = None,
        state: TokenState | str | None = None,
        failing: bool | None = None,
        expires_before: datetime | None = None,
        page_size: int | None = None,
        page_token: str | None = None,
        timeout: float | None = None,
        call_id: str | None = None,
    ) -> Pages[TokenInfo]:
        """Iterates over the stored tokens, without their secrets.

        A token that cannot be read, because its row is damaged or its key is missing, does not end
        the iteration: it is logged as a warning and collected in :attr:`Pages.failed`.

        Args:
            company_id: Only this company and its locations.
            user_type: Only ``"Company"`` or only ``"Location"`` tokens.
            state: Only tokens in this :class:`TokenState`.
            failing: Whether to return only tokens whose last renewal failed. Default: False.
            expires_before: Only tokens whose access token expires before this time. A time without
                a time zone is local.
            page_size: The number of tokens per request, 1 to 1,000. Default: 100.
            page_token: Continue here: the ``next_page_token`` of an earlier list.
            timeout: As for :meth:`request`; for each page.
            call_id: As for :meth:`request`; the page that is being fetched is cancelled.

        Raises:
            InvalidArgument: A parameter is out of range; raised by the iteration, like every error.
        """
        params: dict[str, Any] = {
            "companyId": company_id,
            "userType": user_type,
            "state": None if state is None else str(state),
            "failing": failing,
            "expiresBefore": _epoch_ms(expires_before),
            "pageSize": page_size,
        }
        params |= {"timeoutMs": milliseconds(timeout), "callId": call_id}
        return self._token_pages(
            library.ghl_tokens_list,
            "items",
            lambda item: models.TokenInfo.from_json(item),
            params,
            page_token,
        )

    def tokens_export(
        self,
        *,
        company_id: str | None = None,
        user_type: str | None = None,
        state: TokenState | str | None = None,
        failing: bool | None = None,
        expires_before: datetime | None = None,
        page_size: int | None = None,
        page_token: str | None = None,
        timeout: float | None = None,
        call_id: str | None = None,
    ) -> Pages[Token]:
        """Iterates over the stored tokens with their secrets; :meth:`tokens_import` reads them.

        A refresh token is single-use: once another program uses an exported one, the stored one is
        invalid. Unreadable tokens are handled as in :meth:`tokens_list`.

        Args:
            company_id: Only this company and its locations.
            user_type: Only ``"Company"`` or only ``"Location"`` tokens.
            state: Only tokens in this :class:`TokenState`.
            failing: Whether to return only tokens whose last renewal failed. Default: False.
            expires_before: Only tokens whose access token expires before this time. A time without
                a time zone is local.
            page_size: The number of tokens per request, 1 to 1,000. Default: 100.
            page_token: Continue here: the ``next_page_token`` of an earlier export.
            timeout: As for :meth:`request`; for each page.
            call_id: As for :meth:`request`; the page that is being fetched is cancelled.

        Raises:
            InvalidArgument: A parameter is out of range; raised by the iteration, like every error.
        """
        params: dict[str, Any] = {
            "companyId": company_id,
            "userType": user_type,
            "state": None if state is None else str(state),
            "failing": failing,
            "expiresBefore": _epoch_ms(expires_before),
            "pageSize": page_size,
        }
        params |= {"timeoutMs": milliseconds(timeout), "callId": call_id}
        return self._token_pages(
            library.ghl_tokens_export,
            "tokens",
            lambda item: models.Token.from_json(item),
            params,
            page_token,
        )

    def tokens_import(
        self,
        tokens: Iterable[Token | Mapping[str, Any]],
        *,
        replace: bool | None = None,
        dry_run: bool | None = None,
        timeout: float | None = None,
        call_id: str | None = None,
    ) -> ImportResult:
        """Imports tokens that were granted elsewhere.

        Tokens that cannot be imported are skipped and reported. Examples of skipped tokens: the
        refresh token was already spent; the token was held when its app was uninstalled; the
        refresh token belongs to another company or location; the expiry is unknown and another
        token is held.

        Args:
            tokens: :class:`Token` objects, or mappings in the form of the API or the vendor's SDKs:
                ``accessToken`` or ``access_token``, a refresh token, the id of the company or
                location, and the expiry as ``expiresAt`` (epoch milliseconds) or ``expiresIn``
                (seconds from now).
            replace: Whether an older token may replace a newer one, and a token of an
                uninstalled app may return. Default: False.
            dry_run: Only report what would be done, with the accepted tokens in
                :attr:`ImportResult.accepted`. Default: False.
            timeout: As for :meth:`request`.
            call_id: As for :meth:`request`.

        Raises:
            StoreError: The store failed; some of the tokens are imported, and the import can be
                repeated.
        """
        documents = [
            token.to_json() if isinstance(token, models.Token) else dict(token) for token in tokens
        ]
        return models.ImportResult.from_json(
            self._call_with(
                library.ghl_tokens_import,
                tokens=documents,
                replace=replace,
                dryRun=dry_run,
                timeoutMs=milliseconds(timeout),
                callId=call_id,
            )
        )

    def tokens_adopt(
        self,
        client_id: str | None = None,
        *,
        resource_id: str | None = None,
        dry_run: bool | None = None,
        timeout: float | None = None,
        call_id: str | None = None,
    ) -> Adoption:
        """Moves the tokens of another client id to this one after a key rotation.

        For SQLite and PostgreSQL: both client ids must use the same database. Stop the programs
        that use the other client id first. A token that is stored under this client id stays,
        unless its connection is lost. If the call is interrupted, repeat it to move the rest.

        Args:
            client_id: The other client id. Default: nothing is adopted, and
                :attr:`Adoption.clients` names the client ids that have tokens in the database.
            resource_id: Only this company or location. Default: all.
            dry_run: Only report. Default: False.
            timeout: As for :meth:`request`.
            call_id: As for :meth:`request`.

        Raises:
            ConfigError: The store holds the tokens of one client id only.
            StoreError: The store failed. Some tokens may be adopted; repeat the call for the rest.
        """
        return models.Adoption.from_json(
            self._call_with(
                library.ghl_tokens_adopt,
                clientId=client_id,
                resourceId=resource_id,
                dryRun=dry_run,
                timeoutMs=milliseconds(timeout),
                callId=call_id,
            ),
            self._open().names,
        )

    def tokens_maintain(
        self,
        *,
        company_id: str | None = None,
        concurrency: int | None = None,
        progress: Callable[[MaintenanceProgress], object]
        | ProgressBar
        | ProgressDisplay
        | None = None,
        timeout: float | None = None,
        call_id: str | None = None,
    ) -> Maintenance:
        """Renews every token that is due, in one pass.

        Call it every few minutes from your scheduler. It renews each token with less than
        ``refresh["runway_percent"]`` of its life left, so that a failed renewal leaves hours for
        further attempts; retries saves that the store refused; and mints for locations whose
        INSTALL webhook could not be served at the time. One failure does not stop the rest. Returns
        when all is done; each token takes at most ``timeouts["total_seconds"]``.

        Args:
            company_id: Only this company and its locations. Default: all.
            concurrency: The number of concurrent renewals, 1 to 64. Default: 1.
            progress: A function called after each token, on this thread; or a tqdm bar; or a rich
                ``Progress``, which gets a task. The number of due tokens is known only at the end,
                so the bar has no total until then. To stop the pass, raise an exception: this
                method raises it after saving all finished renewals. The function's return value is
                ignored.
            timeout: The seconds after which the whole call ends. Default: no limit. Call again for
                the rest.
            call_id: As for :meth:`request`.

        Raises:
            StoreError: The store cannot be read.
            Timeout: The timeout passed; finished renewals are saved.
            Cancelled: :meth:`cancel` was called.
        """
        handle = self._open()
        wanted: dict[str, Any] = {"companyId": company_id, "concurrency": concurrency}
        wanted |= {"timeoutMs": milliseconds(timeout), "callId": call_id}

        def maintain(tell: Callable[[MaintenanceProgress], object] | None) -> Maintenance:
            hear = (
                None
                if tell is None
                else lambda so_far: tell(models.MaintenanceProgress.from_json(so_far))
            )
            done = handle.work(library.ghl_tokens_maintain, wanted, hear)
            return models.Maintenance.from_json(done, handle.names)

        if progress is None or callable(progress):
            return maintain(progress)
        from .progress import mover  # imported here because it is slow

        move = mover(progress, "Renewing tokens")
        maintenance = maintain(lambda so_far: move(so_far.checked, None))
        move(maintenance.checked, maintenance.checked)
        return maintenance

    def tokens_mint(
        self,
        company_id: str,
        location_ids: Iterable[str] | None = None,
        *,
        app_id: str | None = None,
        force: bool = False,
        concurrency: int | None = None,
        progress: Callable[[MintProgress], object] | ProgressBar | ProgressDisplay | None = None,
        timeout: float | None = None,
        call_id: str | None = None,
    ) -> Minting:
        """Mints tokens for many locations of a company, as fast as its rate limit allows.

        A location whose token is not due is skipped, so calling it again continues an interrupted
        run. One failure does not stop the rest. Returns when all is done.

        ::

            with tqdm(unit="location") as bar:
                minting = client.tokens_mint(company_id, progress=bar)

        Args:
            company_id: The company.
            location_ids: These locations. Default: every location that has the app installed.
            app_id: The app, if no locations are given. Default: this one.
            force: Also mint for locations whose token is not due. Default: False.
            concurrency: The number of concurrent requests, 1 to 64. Default: 8.
            progress: A function called about four times a second, and at the end, on this thread;
                or a tqdm bar; or a rich ``Progress``, which gets a task. To stop, raise an
                exception: this method raises it after saving all minted tokens.
            timeout: The seconds after which the whole call ends. Default: no limit. Call again for
                the rest.
            call_id: As for :meth:`request`.

        Raises:
            NotFound: No token is held for the company.
            StoreError: New tokens cannot be saved.
            RateLimited: The API demands a pause of more than 15 minutes.
            Timeout: The timeout passed; minted tokens are saved.
            Cancelled: :meth:`cancel` was called.
        """
        handle = self._open()
        wanted = {
            "companyId": company_id,
            "locationIds": None if location_ids is None else list(location_ids),
            "installed": location_ids is None,
            "appId": app_id,
            "force": force,
            "concurrency": concurrency,
            "timeoutMs": milliseconds(timeout),
            "callId": call_id,
        }

        def mint(tell: Callable[[MintProgress], object] | None) -> Minting:
            hear = (
                None if tell is None else lambda so_far: tell(models.MintProgress.from_json(so_far))
            )
            return models.Minting.from_json(
                handle.work(library.ghl_tokens_mint, wanted, hear), handle.names
            )

        if progress is None or callable(progress):
            return mint(progress)
        from .progress import mover  # imported here because it is slow

        move = mover(progress, "Minting tokens")
        return mint(lambda so_far: move(so_far.done + so_far.failed, so_far.total))

    #: Alias of :meth:`tokens_mint` with a more specific name.
    mint_locations = tokens_mint

    def request(
        self,
        method: str,
        path: str,
        *,
        resource_id: str | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        idempotent: bool | None = None,
        retry: bool = True,
        timeout: float | None = None,
        call_id: str | None = None,
    ) -> Response:
        """Sends a request to any endpoint of the API, with a valid token.

        The rate limiter applies, and a request is repeated if that does no harm. If a 401 says that
        the access token is invalid, the library refreshes it and repeats the request once.
        Redirects are not followed.

        ::

            query = {"limit": 20}
            answer = client.request("GET", "/contacts/", resource_id=location_id, query=query)
            for contact in answer.body["contacts"]: ...

        Args:
            method: ``"GET"``, ``"POST"``, ``"PUT"``, ``"PATCH"``, ``"DELETE"``, ``"HEAD"`` or
                ``"OPTIONS"``.
            path: A path that begins with ``/``, or a URL below the base URL.
            resource_id: The company or location whose token is sent. Default: none.
            query: Maps names to strings, numbers, booleans or lists of them; None values are
                omitted.
            headers: Additional headers, or replacements of the usual ones.
            body: Bytes and strings are sent unchanged; a mapping is sent as a form if the content
                type is ``application/x-www-form-urlencoded``; everything else is sent as JSON.
                Default: none.
            idempotent: Whether the server may process the request more than once, so that it is
                repeated after a lost answer. Default: True for GET, HEAD and OPTIONS.
            retry: False sends the request once, even after a 429 or 503.
            timeout: The seconds after which the call ends, at most 86,400. A refresh that was sent
                is finished first. Default: ``timeouts["total_seconds"]``.
            call_id: An id for :meth:`cancel`, 1 to 256 bytes. Several calls may share one.

        Returns:
            The response, even if its status is an error: check ``.status`` or ``.ok``, or call
            ``.raise_for_status()``.
        """
        is_bytes = isinstance(body, (bytes, bytearray, memoryview))
        wanted = {
            "method": method,
            "path": path,
            "resourceId": resource_id,
            "query": {} if query is None else dict(query),
            "headers": {} if headers is None else dict(headers),
            "body": None if is_bytes else body,
            "idempotent": idempotent,
            "retry": retry,
            "timeoutMs": milliseconds(timeout),
            "callId": call_id,
            "bodyBase64": base64.b64encode(body).decode("ascii") if is_bytes else None,
        }
        answer = self._open().call_with(library.ghl_request, wanted)
        return models.Response.from_json(answer, method, resource_id, idempotent)

    # Webhooks of installations and uninstallations.

    def webhook_verify(self, body: bytes, headers: Headers) -> Webhook:
        """Verifies the signature of a webhook of any type and parses it. Changes nothing.

        Args:
            body: The raw body of the request. The signature covers these bytes: JSON that was
                parsed and serialized again does not match.
            headers: The headers of the request, in any case; the header objects of Flask, Django,
                Starlette and similar frameworks work unchanged.

        Raises:
            SignatureInvalid: No configured key made the signature, or the delivery is too old.
            InvalidArgument: The body is signed but is not a JSON object.
        """
        delivery = self._delivery(body, headers)
        return models.Webhook.from_json(self._call(library.ghl_webhook_verify, *delivery))

    def webhook_apply(
        self,
        body: bytes,
        headers: Headers,
        *,
        mint: bool = True,
        timeout: float | None = None,
        call_id: str | None = None,
    ) -> WebhookOutcome:
        """Verifies a webhook like :meth:`webhook_verify` and applies it to the stored tokens.

        INSTALL mints the location's token, or is remembered until its company's token arrives.
        UNINSTALL deletes the token of the location, or the tokens of the company and its locations.
        Deliveries may arrive in any order and repeatedly. Respond with success even if ``applied``
        is False, and with status 429 to an error that is ``retryable``, so that the delivery is
        repeated.

        Args:
            body: As for :meth:`webhook_verify`.
            headers: As for :meth:`webhook_verify`.
            mint: False sends no request to the API, so that many deliveries do not occupy the
                threads of a web server: an INSTALL is only remembered. Its token is minted by
                :meth:`access_token`, for instance in a queue's worker, or by
                :meth:`tokens_maintain`. A token from an earlier installation is handed out until
                :meth:`tokens_maintain` replaces it.
            timeout: As for :meth:`request`.
            call_id: As for :meth:`request`. Without it, a signal or the cancellation of a task does
                not end the call: it is finished in the background.

        Raises:
            SignatureInvalid: No configured key made the signature, or the delivery is too old.
            InvalidArgument: The body is signed but is not a JSON object.
            StoreError, Timeout, Cancelled: Not applied; a repeated delivery is applied.
        """
        delivery = self._delivery(body, headers)
        params = {"mint": mint, "timeoutMs": milliseconds(timeout), "callId": call_id}
        handle, function = self._open(), library.ghl_webhook_apply_with
        if call_id is None:
            outcome = handle.call_without(function, *delivery, encode(params))
        else:
            outcome = handle.call_with(function, params, *delivery)
        return models.WebhookOutcome.from_json(outcome)

    # The OAuth endpoints, without token management.

    def oauth_token(
        self,
        *,
        grant_type: str,
        code: str | None = None,
        refresh_token: str | None = None,
        user_type: str | None = None,
        redirect_uri: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        timeout: float | None = None,
        call_id: str | None = None,
    ) -> Token:
        """Sends ``POST /oauth/token`` and returns its response.

        Stores nothing: :meth:`authorization_complete` is the managed way.

        Args:
            grant_type: ``"authorization_code"``, ``"refresh_token"`` or ``"client_credentials"``.
            code: Required for ``authorization_code``.
            refresh_token: Required for ``refresh_token``; the API accepts it once.
            user_type: The kind of token to request, ``"Company"`` or ``"Location"``.
            redirect_uri: The redirect URI that the consent used.
            client_id: Default: the configured one.
            client_secret: Default: the configured one.
            timeout: As for :meth:`request`.
            call_id: As for :meth:`request`.

        Raises:
            InvalidArgument: A parameter is missing; nothing was sent.
            ReauthorizationRequired: The API refuses the code or the refresh token.
        """
        token = self._call_with(
            library.ghl_oauth_token,
            grantType=grant_type,
            code=code,
            refreshToken=refresh_token,
            userType=user_type,
            redirectUri=redirect_uri,
            clientId=client_id,
            clientSecret=client_secret,
            timeoutMs=milliseconds(timeout),
            callId=call_id,
        )
        return models.Token.from_json(token)

    def oauth_location_token(
        self,
        *,
        company_id: str,
        location_id: str,
        access_token: str | None = None,
        timeout: float | None = None,
        call_id: str | None = None,
    ) -> Token:
        """Sends ``POST /oauth/location-token``: mints a location's token from its company's.

        Stores nothing: :meth:`access_token` is the managed way.

        Args:
            company_id: The location's company.
            location_id: The location.
            access_token: The company's access token. Default: the stored one.
            timeout: As for :meth:`request`.
            call_id: As for :meth:`request`.

        Raises:
            NotFound: No token is held for the company.
            Forbidden: The app is not installed there, or a scope is missing.
        """
        token = self._call_with(
            library.ghl_oauth_location_token,
            companyId=company_id,
            locationId=location_id,
            accessToken=access_token,
            timeoutMs=milliseconds(timeout),
            callId=call_id,
        )
        return models.Token.from_json(token)

    def installed_locations(
        self,
        company_id: str,
        *,
        app_id: str | None = None,
        page_size: int | None = None,
        page_token: str | None = None,
        query: str | None = None,
        is_installed: bool | None = None,
        restrict_to_user_locations: bool | None = None,
        version_id: str | None = None,
        on_trial: bool | None = None,
        plan_id: str | None = None,
        location_id: str | None = None,
        access_token: str | None = None,
        installed: bool = False,
        timeout: float | None = None,
        call_id: str | None = None,
    ) -> Pages[Location]:
        """Iterates over a company's locations, through all pages.

        Sends ``GET /oauth/installed-locations``. Items that are not objects, or whose ``_id`` is
        not a non-empty string, are skipped; :meth:`request` returns the list unchanged.

        Args:
            company_id: The company.
            app_id: The app. Default: the part of the client id before its first ``-``.
            page_size: The number of locations per request, 1 to 100. Default: the API's, 20.
            page_token: Continue here: the ``next_page_token`` of an earlier list.
            query: Part of a location's name.
            is_installed: Only locations with the app, or only those without.
            restrict_to_user_locations: Only locations that the current user may see.
            version_id: A version of the app.
            on_trial: Only locations in a trial of the app.
            plan_id: Only locations on that plan.
            location_id: One location.
            access_token: The company's access token. Default: the stored one.
            installed: Only locations that have the app installed, even if the server ignores
                ``is_installed``. No other location has a token.
            timeout: As for :meth:`request`; for each page.
            call_id: As for :meth:`request`; the page that is being fetched is cancelled.

        Raises:
            InvalidArgument: A parameter is missing or out of range; raised by the iteration, like
                every error.
            NotFound: No token is held for the company.
        """
        self._open()

        def fetch(token: str | None) -> tuple[list[Location], str | None]:
            page = self._call_with(
                library.ghl_oauth_installed_locations,
                companyId=company_id,
                appId=app_id,
                pageSize=page_size,
                pageToken=token,
                query=query,
                isInstalled=True if installed else is_installed,
                restrictToUserLocations=restrict_to_user_locations,
                versionId=version_id,
                onTrial=on_trial,
                planId=plan_id,
                locationId=location_id,
                accessToken=access_token,
                timeoutMs=milliseconds(timeout),
                callId=call_id,
            )
            found = models.Location.all_of(page.get("items"))
            if installed:
                found = [location for location in found if location.is_installed is not False]
            return found, _next_page_token(page.get("pagination"))

        from .pages import Pages  # imported here because it is slow

        return Pages(fetch, page_token)

    def _open(self) -> Handle:
        handle = self._handle
        if handle is None:
            raise ValueError("the client is closed")
        return handle

    def _call(self, function: Callable[..., int], *arguments: Any) -> Any:
        return self._open().call(function, *arguments)

    def _call_with(self, function: Callable[..., int], **params: Any) -> Any:
        return self._open().call_with(function, params)

    @staticmethod
    def _delivery(body: bytes, headers: Headers) -> tuple[bytes, int, bytes]:
        if not isinstance(body, bytes):
            raise TypeError(f"body must be the raw bytes, not {type(body).__name__}")
        # Frameworks list a repeated name repeatedly; a dict would hide the repetition from the
        # library.
        values: dict[str, list[str]] = {}
        for name, value in headers.items():
            values.setdefault(name.lower(), []).append(value)
        return body, len(body), encode(values)

    def _token_pages(
        self,
        function: Callable[..., int],
        key: str,
        read: Callable[[Mapping[str, Any]], Item],
        params: Mapping[str, Any],
        page_token: str | None,
    ) -> Pages[Item]:
        self._open()
        failed: list[FailedToken] = []

        def fetch(token: str | None) -> tuple[list[Item], str | None]:
            page = self._call_with(function, **params, pageToken=token)
            items = [read(item) for item in page[key]]
            names = self._open().names
            failures = page.get("failed") or ()
            unreadable = [models.FailedToken.from_json(failure, names) for failure in failures]
            if unreadable:
                from . import _log

                for each in unreadable:
                    _log.warn(
                        "the stored token cannot be read, and is left out"
                        f" resource_id={json.dumps(each.resource_id)}"
                        f" reason={json.dumps(each.error.message, ensure_ascii=False)}"
                    )
                failed.extend(unreadable)
            return items, page["nextPageToken"]

        from .pages import Pages  # imported here because it is slow

        return Pages(fetch, page_token, failed)


def _words(scopes: Sequence[str] | str | None) -> list[str] | None:
    """The scopes as a list; the API's documents write them as one string."""
    if scopes is None:
        return None
    return scopes.split() if isinstance(scopes, str) else list(scopes)


def _store(store: Any, written: dict[str, str]) -> dict[str, Any] | None:
    if store is None:
        # Static types forbid this, but not every caller checks them, and an environment variable
        # may be unset.
        raise _no_store()
    if isinstance(store, Mapping):
        return _in_camel_case("store", store, written)
    # The program wrote one word for all of these.
    written |= dict.fromkeys(("store.kind", "store.path", "store.url"), "store")
    if store == "memory":
        return {"kind": "memory"}
    if isinstance(store, str) and store.startswith(("postgres://", "postgresql://")):
        return {"kind": "postgres", "url": store}
    return {"kind": "sqlite", "path": os.fspath(store)}


def _custom(store: Any) -> Store | None:
    """The store if it is a :class:`Store`. None exists before its slow module is imported."""
    module = sys.modules.get(f"{__package__}.store")
    return store if module is not None and isinstance(store, module.Store) else None


def _no_store() -> InvalidArgument:
    return InvalidArgument(
        {
            "status": InvalidArgument.status,
            "message": "store is None",
            "help": 'name a file, a URL or a Store; "memory" keeps tokens until the client ends',
            "parameter": "store",
        }
    )


def _in_camel_case(
    section: str, settings: Mapping[str, Any] | None, written: dict[str, str]
) -> dict[str, Any] | None:
    """A section of the configuration with the library's keys.

    Adds to ``written`` how the program wrote each key, by the library's name.
    """
    if settings is None:
        return None
    if not isinstance(settings, Mapping):
        raise TypeError(f"{section} must be a mapping, not {type(settings).__name__}")
    translated: dict[str, Any] = {}
    for key, value in settings.items():
        milliseconds_key = _IN_MILLISECONDS.get(key)
        name = milliseconds_key or _camel(key)
        if name in translated:
            raise TypeError(f"{section}: {key} is given twice, under two names")
        written[f"{_camel(section)}.{name}"] = f"{section}.{key}"
        translated[name] = milliseconds(value) if milliseconds_key else value
    return translated


# The library measures these in milliseconds.
_IN_MILLISECONDS = {
    "connect_seconds": "connectMs",
    "answer_seconds": "answerMs",
    "total_seconds": "totalMs",
    "base_delay_seconds": "baseDelayMs",
    "max_delay_seconds": "maxDelayMs",
    "per_seconds": "perMs",
}


def milliseconds(seconds: Any) -> Any:
    """A duration in whole milliseconds, rounded up. The library refuses other types."""
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    return whole_seconds(seconds * 1000) if is_number else seconds


def whole_seconds(seconds: Any) -> Any:
    """A duration in whole seconds, rounded up. The library refuses other types."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return seconds
    if not math.isfinite(seconds):
        raise ValueError(f"a duration must be finite, not {seconds}")
    return math.ceil(seconds)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)


def _epoch_ms(moment: datetime | None) -> int | None:
    return None if moment is None else models.epoch_ms(moment)


def _next_page_token(pagination: Any) -> str | None:
    """The token of an API list's next page. None on the last page, or if it is unusable."""
    if not isinstance(pagination, dict) or models.flag(pagination.get("hasNextPage")) is False:
        return None
    token = pagination.get("nextPageToken")
    return token if isinstance(token, str) and token else None
