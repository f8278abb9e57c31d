"""The gateway: an ASGI app for `/v1` and `/v2`, and the router that the control plane publishes to."""

import math
from collections.abc import Mapping, MutableMapping
from typing import Any

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from dockyard.clock import Clock
from dockyard.domain.autoscaling import Demand
from dockyard.errors import DockyardError, Failed, Invalid, NotFound, Reason, Unauthenticated
from dockyard.gateway.admission import DEFAULT_QUEUE_LIMIT, Admission
from dockyard.gateway.exchange import GONE_STATUS, ClientGone, Exchange
from dockyard.gateway.inference import CHAT, TEXT, Account, Inference
from dockyard.gateway.metrics import NO_DEPLOYMENT, Metrics
from dockyard.gateway.openai_errors import body_of, rendering
from dockyard.gateway.openai_replies import ServedModelList, event, served_model
from dockyard.gateway.pool import OnLoad
from dockyard.gateway.relay import Relay
from dockyard.gateway.routes import Routes
from dockyard.gateway.upstream import Upstreams
from dockyard.protocols.routing import Keyring, Principal, Route

MODELS = "/v1/models"
_GENERATING = {
    "/v1/chat/completions": CHAT,
    "/v2/chat/completions": CHAT,
    "/v1/completions": TEXT,
}
_encode = msgspec.json.Encoder().encode


class Gateway:
    """Serves inference on the routes that were published. A `protocols.routing.Router`, and an ASGI app."""

    def __init__(
        self,
        keyring: Keyring,
        clock: Clock,
        *,
        queue_limit: int = DEFAULT_QUEUE_LIMIT,
        registry: CollectorRegistry | None = None,
        on_load: OnLoad | None = None,
    ) -> None:
        """`queue_limit`: how many requests may wait per deployment. `on_load(deployment_id, load)` is called once for
        each change of a deployment's load, on the event loop, when `load()` says the same; it must not block,
        publish or withdraw.
        """
        self._keyring = keyring
        self._clock = clock
        self._admission = Admission(clock, queue_limit=queue_limit, on_load=on_load)
        self._routes = Routes()
        self._upstreams = Upstreams()
        self._inference = Inference(self._routes, Relay(self._upstreams, clock), clock)
        self._metrics = Metrics(registry or CollectorRegistry(), self._admission.loads)
        self._log = structlog.get_logger("dockyard.gateway").bind()

    # What the control plane calls

    def published(self) -> Mapping[str, Route]:
        return self._routes.by_id()

    def publish(self, route: Route) -> None:
        self._routes.put(route, self._admission.publish(route))
        addresses = frozenset(replica.address for replica in route.replicas)
        self._upstreams.set_routed(route.deployment_id, addresses)

    def withdraw(self, deployment_id: str, refusal: DockyardError | None = None) -> None:
        self._routes.remove(deployment_id)
        self._admission.withdraw(deployment_id, refusal)
        self._upstreams.set_routed(deployment_id, frozenset())

    def open_requests(self, replica_id: str) -> int:
        return self._admission.open_requests(replica_id)

    async def drained(self, replica_id: str) -> None:
        await self._admission.drained(replica_id)

    def load(self, deployment_id: str) -> Demand:
        """Requests that wait and that run, exact as of now; zero for an unknown deployment."""
        return self._admission.load(deployment_id)

    async def close(self) -> None:
        """Refuse what waits and what comes, and break off what still runs: its clients are told DRAINING."""
        self._admission.close()
        self._upstreams.close()

    # What clients call

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            raise ValueError(f"the gateway does not speak {scope['type']}")
        account = Account(self._clock.monotonic())
        exchange = Exchange(scope, receive, send)
        try:
            await self._dispatch(exchange, account)
        except ClientGone:
            exchange.status = GONE_STATUS
        except DockyardError as error:
            await self._refuse(exchange, account, error)
        except Exception:  # noqa: BLE001 - the boundary: whatever it was, the client gets a reply
            self._log.exception("request_crashed", request_id=exchange.request_id)
            fault = Failed(f"a fault of the server's own; its log has more under request {exchange.request_id}")
            await self._refuse(exchange, account, fault)
        finally:
            self._note(exchange, account)

    async def _dispatch(self, exchange: Exchange, account: Account) -> None:
        kind = _GENERATING.get(exchange.path)
        if kind is not None:
            _check_method(exchange, "POST")
            await self._inference.answer(kind, exchange, self._principal(exchange, account), account)
        elif exchange.path == MODELS:
            _check_method(exchange, "GET")
            await self._list_models(exchange, self._principal(exchange, account))
        elif exchange.path.startswith(f"{MODELS}/"):
            _check_method(exchange, "GET")
            await self._show_model(exchange, self._principal(exchange, account))
        else:
            raise NotFound(f"there is no route {exchange.path[:200]}; /docs lists those there are")

    def _principal(self, exchange: Exchange, account: Account) -> Principal:
        if not exchange.key:
            raise Unauthenticated("a key is needed: send it as x-api-key, or as Authorization: Bearer")
        principal = self._keyring.find(exchange.key)
        if principal is None:
            raise Unauthenticated("the key is unknown or was revoked; ask for a new one", reason=Reason.UNKNOWN_KEY)
        account.key_id = principal.key_id
        return principal

    async def _list_models(self, exchange: Exchange, principal: Principal) -> None:
        mine = [served_model(route) for route in self._routes if principal.may_infer(route.deployment_id)]
        await exchange.reply(200, _encode(ServedModelList(sorted(mine, key=lambda model: model.id))))

    async def _show_model(self, exchange: Exchange, principal: Principal) -> None:
        name = exchange.path[len(MODELS) + 1 :]
        found = self._routes.find(name)
        if found is None or not principal.may_infer(found[0].deployment_id):
            msg = f"no deployment '{name[:128]}' is served to this key; GET /v1/models lists those that are"
            raise NotFound(msg, reason=Reason.MODEL_NOT_SERVED, field="model")
        await exchange.reply(200, _encode(served_model(found[0])))

    async def _refuse(self, exchange: Exchange, account: Account, error: DockyardError) -> None:
        account.reason = str(error.reason)
        status = rendering(error).status
        if exchange.streaming:
            await exchange.break_stream(status, event(body_of(error)))
            return
        await exchange.reply(status, _encode(body_of(error)), *_headers_for(exchange, status, error))

    def _note(self, exchange: Exchange, account: Account) -> None:
        """One log line and the counters, whatever became of the request."""
        seconds = self._clock.monotonic() - account.arrived_at
        name = account.route.name if account.route is not None else NO_DEPLOYMENT
        prompt, completion, moves = 0, 0, 0
        tally = self._metrics.of(name)
        for number, generation in enumerate(account.generations):
            usage = generation.usage
            if usage is not None and number % account.rows == 0:
                prompt += usage.prompt_tokens
            completion += usage.completion_tokens if usage is not None else len(generation.seen)
            moves += generation.moves
            if generation.first_token_at is not None:
                tally.first_token.observe(generation.first_token_at - account.arrived_at)
        tally.request(exchange.status, seconds)
        tally.tokens(prompt, completion)
        tally.failovers += moves
        self._log.info(
            "request",
            request_id=exchange.request_id,
            reply_id=account.reply_id,
            path=exchange.path,
            deployment=name,
            key_id=account.key_id,
            status=exchange.status,
            reason=account.reason,
            ms=round(seconds * 1000, 3),
            prompt_tokens=prompt,
            completion_tokens=completion,
            failovers=moves,
        )


def _check_method(exchange: Exchange, allowed: str) -> None:
    if exchange.method != allowed:
        raise Invalid(f"{exchange.path} takes {allowed}, not {exchange.method}", reason=Reason.METHOD_NOT_ALLOWED)


def _headers_for(exchange: Exchange, status: int, error: DockyardError) -> list[tuple[bytes, bytes]]:
    """The headers that HTTP wants beside a status."""
    if status == 405:
        return [(b"allow", b"POST" if exchange.path in _GENERATING else b"GET")]
    if status == 401:
        return [(b"www-authenticate", b"Bearer")]
    if status == 408:
        return [(b"connection", b"close")]  # the rest of the body may still come, and is no request
    if status in (429, 503):
        return [(b"retry-after", b"%d" % math.ceil(error.retry_after_s or 1))]
    return []
