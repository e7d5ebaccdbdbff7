"""The client: one app, its tokens, and the way to the API."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Callable, Protocol, TypeVar

from ._boundary import encode, encode_id
from ._handle import Handle, StoreHandle
from ._library import library
from .errors import InvalidArgument
from .models import (
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
    Token,
    TokenInfo,
    Webhook,
    WebhookOutcome,
    flag,
)
from .pages import Pages
from .progress import ProgressBar, ProgressDisplay, mover
from .store import Store

Item = TypeVar("Item")


class Headers(Protocol):
    """What every framework's headers can do, and a dict too."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Names with their values."""
        ...


class Client:
    """Keeps an app's tokens alive and hands them out.

    ::

        with Client(client_id="…", client_secret="…", redirect_uri="https://…", store="tokens.db") as client:
            link = client.authorization_url(scopes=["contacts.readonly"])
            # a person opens link.url, consents, and the browser comes back with redirect_url
            info = client.authorization_complete(redirect_url)
            token = client.access_token(info.resource_id)  # from now on, for years

    Every method may be called from any number of threads at once; the GIL is free while a call runs. Every
    method raises a :class:`GhlError` of the class that its reason has, or ``ValueError`` when the client is closed;
    the methods' own lists name what is particular to them. A call takes at most ``timeouts["total_ms"]``. A signal,
    Ctrl-C for instance, is handled when the call returns; :meth:`cancel` from another thread ends it sooner.

    After ``os.fork`` the child may go on using the client.

    Close the client at its end, or use it in a ``with`` statement: a new token that the store refused is held in memory
    only, and :meth:`close` offers it to the store for the last time. The interpreter's exit does so as well, but is not
    reached by ``os._exit`` or a signal.
    """

    def __init__(
        self,
        client_id: str,
        client_secret: str,
        *,
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
    ) -> None:
        """Makes a client. Only the id and the secret are required; None means the default, except for ``store``.

        The keys of the mappings may be written in snake_case or in the library's camelCase.

        Args:
            client_id: The app's client id, ``<appId>-<suffix>``.
            client_secret: The app's client secret.
            redirect_uri: Where the consent page sends the browser back to. Default: none; then each call names it.
            scopes: The scopes that a consent asks for, as a sequence or separated by spaces. Default: none; then
                each call names them.
            store: Where tokens are kept: ``"memory"`` (the default; they end with the client), the path of an SQLite
                file, the URL of a PostgreSQL database (``postgres://…``, where the library was built with that
                feature), the library's own form (``{"kind": "sqlite", "path": "tokens.db"}``), or a :class:`Store`.
                None is an error, lest an unset variable end in a store that forgets.
            base_url: Where the API lives; may carry a path prefix. Default: ``https://services.leadconnectorhq.com``.
            authorize_url: The consent page. Default:
                ``https://marketplace.gohighlevel.com/v2/oauth/chooselocation``.
            api_version: The value of the ``Version`` header. Default: ``"v3"``.
            token_request_encoding: ``"form"`` (the default) or ``"json"``.
            timeouts: ``connect_ms`` (default 10,000) for name, connection and TLS; ``answer_ms`` (default 12,000) for
                one attempt to refresh; ``total_ms`` (default 30,000) for a whole call, waiting and retries included.
            retry: ``max_attempts`` (default 3), ``base_delay_ms`` (default 200) and ``max_delay_ms`` (default 5,000).
            rate_limit: The API's limit per company or location: ``requests`` (default 100) in any window of
                ``per_ms`` (default 10,000), and ``per_day`` (default 200,000).
            refresh: ``margin_seconds`` (default 300): how long before its death a token is renewed at the latest;
                ``runway_percent`` (default 25): the part of its life below which maintenance renews it.
            limits: ``response_bytes`` (default 1,048,576): the longest answer that is read.
            http: ``proxy``, ``ca_bundle_path`` (a PEM file of roots to trust beside the platform's own),
                ``user_agent_suffix`` and ``allow_insecure_http`` (plain HTTP to hosts other than this machine).
            webhook: ``ed25519_public_keys`` (default: the vendor's) and ``rsa_public_keys`` (default: none), lists of
                keys in PEM, hex or base64; ``max_age_seconds`` (default: any age).

        Raises:
            InvalidArgument: A key is unknown, missing or mistyped; ``parameter`` names it.
            ConfigError: A value cannot be used; ``parameter`` names its key.
            StoreError: The store cannot be opened.
        """
        self._client_id = client_id
        self._handle: Handle | None = None
        config = {
            "clientId": client_id,
            "clientSecret": client_secret,
            "redirectUri": redirect_uri,
            "scopes": _words(scopes),
            "store": None if isinstance(store, Store) else _store(store),
            "baseUrl": base_url,
            "authorizeUrl": authorize_url,
            "apiVersion": api_version,
            "tokenRequestEncoding": token_request_encoding,
            "timeouts": _in_camel_case(timeouts),
            "retry": _in_camel_case(retry),
            "rateLimit": _in_camel_case(rate_limit),
            "refresh": _in_camel_case(refresh),
            "limits": _in_camel_case(limits),
            "http": _in_camel_case(http),
            "webhook": _in_camel_case(webhook),
        }
        self._begin(config, store if isinstance(store, Store) else None)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], store: Store | None = None) -> Client:
        """Makes a client from the library's own configuration document, as every language has it.

        ::

            with open("config.json") as file:
                client = Client.from_config(json.load(file))

        Args:
            config: The keys and defaults of docs/configuration.md, in camelCase; ``clientId`` and ``clientSecret`` are
                required.
            store: A store written in Python, in place of the configured one. Of that, what concerns sealing counts:
                ``sealedOnly``, and, where this store has no ``encryption_keys``, ``encryptionKeys`` or
                ``encryptionKeysPath``. Default: none.

        Raises:
            InvalidArgument: A key is unknown, missing or mistyped, or ``"store"`` is None; ``parameter`` names it.
            ConfigError: A value cannot be used; ``parameter`` names its key.
            StoreError: The store cannot be opened.
        """
        if store is None and "store" in config and config["store"] is None:
            raise _no_store()
        client = cls.__new__(cls)
        client._client_id = str(config.get("clientId", ""))
        client._handle = None
        client._begin(config, store)
        return client

    def _begin(self, config: Mapping[str, Any], store: Store | None) -> None:
        # Imported here because logging takes a large part of the package's import time.
        from . import _log

        _log.connect()
        if store is None:
            self._handle = Handle(encode(config))
        else:
            configured = config.get("store") or {}
            sealing = ("encryptionKeys", "encryptionKeysPath", "sealedOnly")
            kept: dict[str, Any] = {key: configured[key] for key in sealing if key in configured}
            if store.encryption_keys:
                kept.pop("encryptionKeysPath", None)
                kept["encryptionKeys"] = list(store.encryption_keys)
            kept["kind"] = "callbacks"
            self._handle = StoreHandle(encode({**config, "store": kept}), store)

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
        """Lets go of the client; every later call raises ``ValueError``. May be called again.

        Calls that still run on other threads end as usual, and the last one's return frees the client; :meth:`cancel`
        first makes them return at once.

        A new token that the store refused is offered to it for the last time, for up to five seconds. If the store
        refuses again, an error in the log names the resource.
        """
        self._handle = None

    def cancel(self) -> None:
        """Ends every call that is waiting with :class:`Cancelled`; later calls work as ever.

        A refresh whose request was sent runs on, on its own thread, until the answer is saved: its refresh token is
        spent, and the answer holds the only successor.
        """
        self._open().cancel()

    def stats(self) -> dict[str, Any]:
        """Figures for an operator, such as the number of requests sent and of tokens held; never a secret."""
        statistics: dict[str, Any] = self._call(library.ghl_client_stats)
        return statistics

    def on_event(self, listener: Callable[[Event], None] | None) -> None:
        """Sets, or with None takes away, the function that is told what happens to this client's tokens.

        It is called on a thread that is inside a call, for any reason listed at :class:`Event`, and that call waits
        for it: hand longer work to another thread. It may use the client. What it raises goes to
        ``sys.unraisablehook``; the call that it interrupted is not affected.

        Args:
            listener: The function, or None. One that is running while it is replaced ends in its own time.
        """
        handle = self._open()
        handle.listen(None if listener is None else lambda event: listener(Event.from_json(event)))

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
        """The link to send a person to.

        Args:
            scopes: As a sequence or separated by spaces. Default: the configured ones.
            redirect_uri: Default: the configured one.
            version_id: The app's version; a private app may need it.
            login_in_same_tab: Whether the login stays in the same browser tab. Default: False.
            state: A ``state`` of your own. Default: 256 random bits.

        Raises:
            InvalidArgument: Scopes or redirect URI are neither given nor configured, or malformed.
        """
        link = self._call_with(
            library.ghl_authorization_url,
            scopes=_words(scopes),
            redirectUri=redirect_uri,
            versionId=version_id,
            loginInSameTab=login_in_same_tab,
            state=state,
        )
        return AuthorizationUrl.from_json(link)

    def authorization_complete(
        self,
        redirect_url: str,
        *,
        state: str | None = None,
        allow_missing_state: bool | None = None,
        redirect_uri: str | None = None,
        user_type: str | None = None,
    ) -> TokenInfo:
        """Checks what the consent page sent back, exchanges its code, and stores the token.

        Args:
            redirect_url: The whole URL that the browser was sent to, with its query.
            state: The ``state`` that belongs to this browser's session; needed when another process made the link.
                Default: that of any link which this client made.
            allow_missing_state: Accept a redirect without a ``state``, as an installation that was started inside the
                marketplace sends it. Default: False.
            redirect_uri: That of the link, where another process made it with one that is not configured.
            user_type: The kind of token that is wanted, ``"Company"`` or ``"Location"``. Default: what the
                installation gives.

        Raises:
            ConsentDenied: The person, or the marketplace, refused.
            StateMismatch: The ``state`` is missing, unknown, expired or already used.
            ReauthorizationRequired: The API refuses the code; begin again with a new link.
            InvalidArgument: The URL is not this app's redirect.

        After an error that is ``retryable`` the same redirect may be given again.
        """
        info = self._call_with(
            library.ghl_authorization_complete,
            redirectUrl=redirect_url,
            state=state,
            allowMissingState=allow_missing_state,
            redirectUri=redirect_uri,
            userType=user_type,
        )
        return TokenInfo.from_json(info)

    def authorization_listen(
        self,
        *,
        port: int | None = None,
        timeout_ms: int | None = None,
        state: str | None = None,
        allow_missing_state: bool | None = None,
        redirect_uri: str | None = None,
        user_type: str | None = None,
    ) -> TokenInfo:
        """Waits for the browser on a port of this machine, and completes the consent.

        For development, and for programs without a web server of their own: let an HTTPS tunnel lead from the redirect
        URI to the port, show the person the link of :meth:`authorization_url`, and call this. It listens on 127.0.0.1
        alone. The first redirect with the right ``state`` ends the wait, the browser gets a plain page that says
        whether it worked, and the port is closed; whatever else comes is refused, and waited past.

        Python sees Ctrl+C only when the call returns: :meth:`cancel` on another thread ends it at once.

        Args:
            port: Default: that of the redirect URI, where it is ``http`` on ``localhost`` or ``127.0.0.1``; behind a
                tunnel it must be given.
            timeout_ms: How long to wait for the browser, 1 to 3,600,000. Default: 300,000.
            state: As for :meth:`authorization_complete`.
            allow_missing_state: The same. With it, any page in the person's browser can end the wait, and slip in a
                code of its own.
            redirect_uri: That of the link. Default: the configured one.
            user_type: As for :meth:`authorization_complete`.

        Raises:
            Timeout: Nobody came back.
            Cancelled: :meth:`cancel` was called.
            InvalidArgument: A parameter cannot be used, or the port is taken; ``parameter`` names it.
            ConsentDenied, ReauthorizationRequired: As for :meth:`authorization_complete`.
        """
        info = self._call_with(
            library.ghl_authorization_listen,
            port=port,
            timeoutMs=timeout_ms,
            state=state,
            allowMissingState=allow_missing_state,
            redirectUri=redirect_uri,
            userType=user_type,
        )
        return TokenInfo.from_json(info)

    # Token manager.

    def access_token(self, resource_id: str) -> str:
        """A live access token for a company or location; ask before each use and do not keep it.

        Usually a look into memory. Where the token is due, one caller renews it, across threads and processes, and the
        others wait for its result. A location that was installed under its company gets its first token here.

        Args:
            resource_id: The company's or location's id.

        Raises:
            NotFound: No token is held, and no company's token that could mint one.
            ReauthorizationRequired: Only a person's consent can help.
            LocationInactive: The location is paused; its refresh token is kept.
            RateLimited, NetworkError, Timeout, ServerError, ProtocolError, StoreError: The renewal failed and the old
                token is dead, too.
        """
        handle = self._handle
        if handle is None:
            handle = self._open()
        return handle.access_token(resource_id)

    def token_refresh(self, resource_id: str) -> TokenInfo:
        """Renews a token now, whatever the clock says; for a token that the API calls dead before its time.

        Args:
            resource_id: The company's or location's id.

        Raises:
            GhlError: As :meth:`access_token`; here an old token that still lives does not hide a failure.
        """
        return TokenInfo.from_json(self._call(library.ghl_token_refresh, encode_id(resource_id)))

    def token_delete(self, resource_id: str) -> TokenInfo:
        """Deletes a token from the store, and returns what it was. The API does not learn of it.

        Args:
            resource_id: The company's or location's id.

        Raises:
            NotFound: No token is held for it.
        """
        return TokenInfo.from_json(self._call(library.ghl_token_delete, encode_id(resource_id)))

    def tokens_list(
        self,
        *,
        company_id: str | None = None,
        user_type: str | None = None,
        page_size: int | None = None,
        page_token: str | None = None,
    ) -> Pages[TokenInfo]:
        """Iterates over the stored tokens, without their secrets.

        A token that cannot be read, because its row is damaged or its key is missing, does not end the list: a warning
        in the log names its resource, and the iterator's :attr:`Pages.failed` has it with its error.

        Args:
            company_id: Only this company and its locations.
            user_type: Only ``"Company"`` or only ``"Location"`` tokens.
            page_size: How many are fetched at once, 1 to 1,000. Default: 100.
            page_token: Where to go on: the ``next_page_token`` of an earlier list.

        Raises:
            InvalidArgument: A parameter is out of range; raised by the iteration, as every error is.
        """
        params = {"companyId": company_id, "userType": user_type, "pageSize": page_size}
        return self._token_pages(library.ghl_tokens_list, "items", TokenInfo.from_json, params, page_token)

    def tokens_export(
        self,
        *,
        company_id: str | None = None,
        user_type: str | None = None,
        page_size: int | None = None,
        page_token: str | None = None,
    ) -> Pages[Token]:
        """Iterates over the stored tokens with their secrets; :meth:`tokens_import` reads them.

        A refresh token is single-use: once another program uses an exported one, the original is worthless. Tokens that
        cannot be read are logged and collected in :attr:`Pages.failed`, as :meth:`tokens_list` does.

        Args:
            company_id: Only this company and its locations.
            user_type: Only ``"Company"`` or only ``"Location"`` tokens.
            page_size: How many are fetched at once, 1 to 1,000. Default: 100.
            page_token: Where to go on: the ``next_page_token`` of an earlier export.

        Raises:
            InvalidArgument: A parameter is out of range; raised by the iteration, as every error is.
        """
        params = {"companyId": company_id, "userType": user_type, "pageSize": page_size}
        return self._token_pages(library.ghl_tokens_export, "tokens", Token.from_json, params, page_token)

    def tokens_import(
        self, tokens: Iterable[Token | Mapping[str, Any]], *, replace: bool | None = None
    ) -> ImportResult:
        """Takes over tokens that were granted elsewhere. What cannot be imported is skipped and named.

        Skipped, each with its reason, is for instance a token whose refresh token was spent already, one whose refresh
        token belongs to another company or location, and one that does not say when it expires while another is held.

        Args:
            tokens: :class:`Token` objects, or mappings as the API or the vendor's SDKs have them: ``accessToken`` or
                ``access_token``, a refresh token, the company's or location's id, and the expiry as ``expiresAt``
                (epoch milliseconds) or ``expiresIn`` (seconds from now).
            replace: Whether an older token may replace a newer one. Default: False.

        Raises:
            StoreError: The store failed; some of the tokens are imported, and the same import again brings the rest.
        """
        documents = [token.to_json() if isinstance(token, Token) else dict(token) for token in tokens]
        return ImportResult.from_json(self._call_with(library.ghl_tokens_import, tokens=documents, replace=replace))

    def tokens_maintain(
        self,
        *,
        company_id: str | None = None,
        concurrency: int | None = None,
        progress: Callable[[MaintenanceProgress], object] | ProgressBar | ProgressDisplay | None = None,
    ) -> Maintenance:
        """One pass over the tokens that are due; call it every few minutes from your scheduler.

        Renews each token of which less than ``refresh["runway_percent"]`` is left, so that a renewal that fails leaves
        hours to try again, offers to the store what it did not take before, and mints for the locations whose INSTALL
        webhook came when that could not be done. One failure does not stop the rest. Returns when all is done; each
        token takes at most ``timeouts["total_ms"]``.

        Args:
            company_id: Only this company and its locations. Default: all.
            concurrency: How many tokens are renewed at once, 1 to 64. Default: 1.
            progress: Called after each token, on this thread; or a bar of tqdm's, or a ``Progress`` of rich's, which
                gets a task. How many tokens are due is known at the end: until then the bar has no total. To end the
                pass, raise an exception, which then comes out of this method: what was renewed by then is saved. What
                it returns is ignored.

        Raises:
            StoreError: The store cannot be read.
            Cancelled: :meth:`cancel` was called.
        """
        handle = self._open()
        wanted = {"companyId": company_id, "concurrency": concurrency}

        def maintain(tell: Callable[[MaintenanceProgress], object] | None) -> Maintenance:
            hear = None if tell is None else lambda so_far: tell(MaintenanceProgress.from_json(so_far))
            return Maintenance.from_json(handle.work(library.ghl_tokens_maintain, encode(wanted), hear))

        if progress is None or callable(progress):
            return maintain(progress)
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
    ) -> Minting:
        """Mints tokens for many locations of a company, as fast as its rate limit allows.

        A location whose token is not due costs nothing: call it again for what a first run left. One failure does not
        stop the rest. Returns when all is done.

        ::

            with tqdm(unit="location") as bar:
                minting = client.tokens_mint(company_id, progress=bar)

        Args:
            company_id: The company.
            location_ids: These locations. Default: every location where the app is installed.
            app_id: The app, where no locations are given. Default: this one.
            force: Mint for locations whose token is not due, too. Default: False.
            concurrency: How many requests are under way at once, 1 to 64. Default: 8.
            progress: Called about four times a second, and at the end, on this thread; or a bar of tqdm's, or a
                ``Progress`` of rich's, which gets a task. To end the work, raise an exception, which then comes out of
                this method: what was minted by then is saved.

        Raises:
            NotFound: No token is held for the company.
            StoreError: New tokens cannot be saved.
            RateLimited: The API wants to be left in peace for more than 15 minutes.
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
        }

        def mint(tell: Callable[[MintProgress], object] | None) -> Minting:
            hear = None if tell is None else lambda so_far: tell(MintProgress.from_json(so_far))
            return Minting.from_json(handle.work(library.ghl_tokens_mint, encode(wanted), hear))

        if progress is None or callable(progress):
            return mint(progress)
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
    ) -> Response:
        """Sends a request to any endpoint of the API, with a live token and the configured version.

        Paced by the rate limit, and repeated where that does no harm. A 401 that says that the access token is dead
        makes the library refresh it and send the request again, once. Redirects are not followed.

        ::

            answer = client.request("GET", "/contacts/", resource_id=location_id, query={"limit": 20})
            for contact in answer.body["contacts"]: ...

        Args:
            method: ``"GET"``, ``"POST"``, ``"PUT"``, ``"PATCH"``, ``"DELETE"``, ``"HEAD"`` or ``"OPTIONS"``.
            path: One that begins with ``/``, or a URL below the base URL.
            resource_id: The company or location whose token goes along. Default: none.
            query: Names to texts, numbers, booleans or lists of them; what is None is left out.
            headers: Headers beside the usual ones, or in their place.
            body: Bytes and texts go as they are; anything else as JSON, or a mapping as a form where the headers'
                content type says ``application/x-www-form-urlencoded``. Default: none.

        Returns:
            The answer, whatever its status: look at ``.status`` or ``.ok``.
        """
        is_bytes = isinstance(body, (bytes, bytearray, memoryview))
        wanted = {
            "method": method,
            "path": path,
            "resourceId": resource_id,
            "query": {} if query is None else dict(query),
            "headers": {} if headers is None else dict(headers),
            "body": None if is_bytes else body,
            "bodyBase64": base64.b64encode(body).decode("ascii") if is_bytes else None,
        }
        return Response.from_json(self._call(library.ghl_request, encode(wanted)))

    # Webhooks of installations and uninstallations.

    def webhook_verify(self, body: bytes, headers: Headers) -> Webhook:
        """Checks that a webhook, of whatever type, is the vendor's, and parses it. Changes nothing.

        Args:
            body: The request's raw body. The signature is that of these bytes: JSON that was parsed and written again
                is another body.
            headers: The request's headers, in any case; those of Flask, Django, Starlette and their like as they are.

        Raises:
            SignatureInvalid: No configured key signed it, or it is too old.
            InvalidArgument: It is signed, but no JSON object.
        """
        return Webhook.from_json(self._webhook(library.ghl_webhook_verify, body, headers))

    def webhook_apply(self, body: bytes, headers: Headers) -> WebhookOutcome:
        """Checks a webhook as :meth:`webhook_verify` does, and does to the tokens what it says.

        An INSTALL mints the location's token, or is remembered until its company's token is here; an UNINSTALL deletes
        the token of the location, or of the company with all its locations. Deliveries may come in any order and any
        number of times. Answer the vendor with a success whatever ``applied`` says, and with a failure for an error
        that is ``retryable``, so that the delivery is repeated.

        Args:
            body: As for :meth:`webhook_verify`.
            headers: As for :meth:`webhook_verify`.

        Raises:
            SignatureInvalid: No configured key signed it, or it is too old.
            InvalidArgument: It is signed, but no JSON object.
            StoreError, Timeout, Cancelled: It is to be applied when it is repeated.
        """
        return WebhookOutcome.from_json(self._webhook(library.ghl_webhook_apply, body, headers))

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
    ) -> Token:
        """``POST /oauth/token`` as it is. Stores nothing: :meth:`authorization_complete` is the managed way.

        Args:
            grant_type: ``"authorization_code"``, ``"refresh_token"`` or ``"client_credentials"``.
            code: Required for ``authorization_code``.
            refresh_token: Required for ``refresh_token``; the API accepts it once.
            user_type: The kind of token that is wanted, ``"Company"`` or ``"Location"``.
            redirect_uri: The redirect URI that the consent used.
            client_id: Default: the configured one.
            client_secret: Default: the configured one.

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
        )
        return Token.from_json(token)

    def oauth_location_token(self, *, company_id: str, location_id: str, access_token: str | None = None) -> Token:
        """``POST /oauth/location-token`` as it is: mints a location's token from its company's. Stores nothing.

        Args:
            company_id: The location's company.
            location_id: The location.
            access_token: The company's access token. Default: the one held for the company.

        Raises:
            NotFound: No token is held for the company.
            Forbidden: The app is not installed there, or a scope is missing.
        """
        token = self._call_with(
            library.ghl_oauth_location_token,
            companyId=company_id,
            locationId=location_id,
            accessToken=access_token,
        )
        return Token.from_json(token)

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
    ) -> Pages[Location]:
        """``GET /oauth/installed-locations``: iterates over a company's locations, through all pages.

        An item that is no object, or whose ``_id`` is no text or an empty one, is passed over; :meth:`request` shows
        the list as the API sent it.

        Args:
            company_id: The company.
            app_id: The app. Default: the part of the client id before its first ``-``.
            page_size: How many are fetched at once, 1 to 100. Default: the API's, 20.
            page_token: Where to go on: the ``next_page_token`` of an earlier list.
            query: Part of a location's name.
            is_installed: Only locations with the app, or only those without.
            restrict_to_user_locations: Only locations that the current user may see.
            version_id: A version of the app.
            on_trial: Only locations that try the app.
            plan_id: Only locations on that plan.
            location_id: One location.
            access_token: The company's access token. Default: the one held for the company.
            installed: Only locations where the app is installed, even if the server ignores ``is_installed``. No other
                location has a token.

        Raises:
            InvalidArgument: A parameter is missing or out of range; raised by the iteration, as every error is.
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
            )
            found = Location.all_of(page.get("items"))
            if installed:
                found = [location for location in found if location.is_installed is not False]
            return found, _next_page_token(page.get("pagination"))

        return Pages(fetch, page_token)

    def _open(self) -> Handle:
        handle = self._handle
        if handle is None:
            raise ValueError("the client is closed")
        return handle

    def _call(self, function: Callable[..., int], *arguments: Any) -> Any:
        return self._open().call(function, *arguments)

    def _call_with(self, function: Callable[..., int], **params: Any) -> Any:
        return self._call(function, encode(params))

    def _webhook(self, function: Callable[..., int], body: bytes, headers: Headers) -> Any:
        if not isinstance(body, bytes):
            raise TypeError(f"body must be the raw bytes, not {type(body).__name__}")
        # Frameworks list a repeated name repeatedly; a dict would hide the repetition from the
        # library.
        values: dict[str, list[str]] = {}
        for name, value in headers.items():
            values.setdefault(name.lower(), []).append(value)
        return self._call(function, body, len(body), encode(values))

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
            unreadable = [FailedToken.from_json(failure) for failure in page.get("failed") or ()]
            if unreadable:
                from . import _log

                for each in unreadable:
                    reason = each.error.message
                    _log.warn(f"{each.resource_id}: the stored token cannot be read, and is left out: {reason}")
                failed.extend(unreadable)
            return items, page["nextPageToken"]

        return Pages(fetch, page_token, failed)


def _words(scopes: Sequence[str] | str | None) -> list[str] | None:
    """Scopes as the API's documents write them, in one string, or one by one."""
    if scopes is None:
        return None
    return scopes.split() if isinstance(scopes, str) else list(scopes)


def _store(store: str | os.PathLike[str] | Mapping[str, Any] | None) -> dict[str, Any] | None:
    if store is None:
        # Static types forbid this, but not every caller checks them, and an environment variable
        # may be unset.
        raise _no_store()
    if isinstance(store, Mapping):
        return _in_camel_case(store)
    if store == "memory":
        return {"kind": "memory"}
    if isinstance(store, str) and store.startswith(("postgres://", "postgresql://")):
        return {"kind": "postgres", "url": store}
    return {"kind": "sqlite", "path": os.fspath(store)}


def _no_store() -> InvalidArgument:
    return InvalidArgument(
        {
            "status": InvalidArgument.status,
            "message": "store is None",
            "help": 'name a file, a URL or a Store; "memory" keeps tokens until the client ends',
            "parameter": "store",
        }
    )


def _in_camel_case(settings: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if settings is None else {_camel(key): value for key, value in settings.items()}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)


def _next_page_token(pagination: Any) -> str | None:
    """Where a list of the API's goes on, if it says so in a form that can be handed back."""
    if not isinstance(pagination, dict) or flag(pagination.get("hasNextPage")) is False:
        return None
    token = pagination.get("nextPageToken")
    return token if isinstance(token, str) and token else None
