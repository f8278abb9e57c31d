"""What a hub and the way to it can answer, told as a reason and one sentence; whether trying again may help."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers

from dockyard.errors import Failed, Reason

FOREIGN = (
    HfHubHTTPError, httpx2.HTTPError, httpx2.InvalidURL, OfflineModeIsEnabled, FileMetadataError,
    UnicodeError,  # a token that no header can carry
)  # fmt: skip

_PASSING = (408, 429, 500, 502, 503, 504)
_LOGIN = "set HF_TOKEN in the environment of `dockyard serve`, or run `hf auth login` as its user, then import again"


@dataclass(frozen=True, slots=True)
class Trouble:
    """`passing`: trying again may help, not before `after_s` if the hub said so."""

    failure: Failed
    passing: bool = False
    after_s: float | None = None


def trouble(error: Exception, repository: str, revision: str | None, now: datetime) -> Trouble:
    """What `error`, one of `FOREIGN`, means for an import. No sentence holds a URL: they may carry signatures."""
    at = f"{repository} at revision {revision}" if revision else repository
    match error:
        case GatedRepoError():
            told = f"{repository} is gated: open its page on {hub_name()}, accept its terms, then {_LOGIN}"
            return _final(Reason.HUB_REPOSITORY_GATED, told)
        case DisabledRepoError():
            told = f"the hub has disabled access to {repository}; choose another repository"
            return _final(Reason.HUB_ACCESS_REFUSED, told)
        case RepositoryNotFoundError() if not _hides_a_token(error):
            told = f"{hub_name()} has no repository {repository} that the server may read; check the name"
            return _final(Reason.HUB_REPOSITORY_NOT_FOUND, f"{told}, and if it is private, {_LOGIN}")
        case RevisionNotFoundError():
            told = f"{repository} has no revision {revision or 'main'}; name a branch, a tag or a commit of it"
            return _final(Reason.HUB_REVISION_NOT_FOUND, told)
        case EntryNotFoundError():
            return _final(Reason.HUB_FILE_NOT_FOUND, f"a file of {at} has gone from the hub; import again")
        case HfHubHTTPError():
            return _of_status(error.response, repository, now)
        case OfflineModeIsEnabled():
            told = "the server is told to stay offline; unset HF_HUB_OFFLINE where `dockyard serve` runs"
            return _final(Reason.HUB_UNREACHABLE, f"{told}, or import a folder of its disk")
        case httpx2.InvalidURL() | httpx2.UnsupportedProtocol():
            told = "HF_ENDPOINT is no address of a hub; set it to one such as https://huggingface.co, or unset it"
            return _final(Reason.HUB_UNREACHABLE, f"{told}, and start the server again")
        case httpx2.LocalProtocolError() | UnicodeError():
            return _final(Reason.HUB_ACCESS_REFUSED, f"the server's token holds what no token holds; {_LOGIN}")
        case httpx2.TimeoutException() | httpx2.ConnectError() | httpx2.ProxyError():
            why = "in time" if isinstance(error, httpx2.TimeoutException) else "to the server"
            told = f"{hub_name()} does not answer {why}; check its network, proxy, certificates and HF_ENDPOINT"
            return Trouble(Failed(f"{told}, then import again", reason=Reason.HUB_UNREACHABLE), passing=True)
        case httpx2.TransportError():
            told = "the connection to the hub broke again and again; check the network, then import again"
            return Trouble(Failed(told, reason=Reason.DOWNLOAD_BROKEN), passing=True)
        case _:
            return _final(Reason.HUB_FAILED, not_a_hub())


def hub_name() -> str:
    """The hub's host, as a sentence names it; a password in its address stays out."""
    address = urlsplit(constants.ENDPOINT)
    try:
        port = f":{address.port}" if address.port else ""
    except ValueError:
        port = ""
    return f"{address.hostname or 'the hub'}{port}"


def not_a_hub() -> str:
    return f"{hub_name()} does not answer as a hub does; check HF_ENDPOINT and the proxy of the server"


def _hides_a_token(error: HfHubHTTPError) -> bool:
    """Whether it is the token that was refused: the library reads every 401 as a repository that is not there."""
    reply = error.response
    return reply.status_code == 401 and _had_token(reply) and "x-error-code" not in reply.headers


def _had_token(reply: httpx2.Response) -> bool:
    return "authorization" in reply.request.headers


def _of_status(reply: httpx2.Response, repository: str, now: datetime) -> Trouble:
    status, headers = reply.status_code, reply.headers
    if status == 401 and not _had_token(reply):
        told = (
            f"{hub_name()} asks for a token to read {repository} (401); check the name, and if it is private, {_LOGIN}"
        )
        return _final(Reason.HUB_ACCESS_REFUSED, told)
    if status == 401:
        return _final(Reason.HUB_ACCESS_REFUSED, f"{hub_name()} refused the server's token (401); {_LOGIN}")
    if status == 403:
        told = f"the server's token may not read {repository} (403); give the token that right, or {_LOGIN}"
        return _final(Reason.HUB_ACCESS_REFUSED, told)
    if status == 429:
        after_s = _retry_after(headers, now)
        when = f" for {after_s:.0f} s more" if after_s else ""
        told = f"{hub_name()} limits how often the server may ask{when}; import again later, with HF_TOKEN set for more"
        return Trouble(Failed(told, reason=Reason.HUB_RATE_LIMITED), passing=True, after_s=after_s)
    if status == 404:
        return _final(Reason.HUB_FAILED, not_a_hub())
    told = f"{hub_name()} answered with status {status}; import again later"
    passing = status in _PASSING
    after_s = _retry_after(headers, now) if passing else None
    return Trouble(Failed(told, reason=Reason.HUB_FAILED), passing=passing, after_s=after_s)


def _retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds: `Retry-After` as a number or a date, else what the hub's own `RateLimit` says."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        limit = parse_ratelimit_headers(headers)
        return float(limit.reset_in_seconds) if limit and limit.remaining == 0 else None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds())


def _final(reason: Reason, told: str) -> Trouble:
    return Trouble(Failed(told, reason=reason))
