"""What goes wrong with DynamoDB, said with its cause and its cure, and what became of the request.

AWS' own words are looked at and never repeated: they can hold a key, an account, or who asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

from ..errors import StoreError
from .dynamodb_url import Place


class Outcome(Enum):
    """What a request that failed has done."""

    #: Nothing, because there is too much to do: the same may succeed in a moment.
    THROTTLED = "throttled"
    #: Nothing, because it was never sent.
    UNSENT = "unsent"
    #: Nothing, and sending it again would not help.
    REFUSED = "refused"
    #: Nobody can tell: the answer is lost.
    UNKNOWN = "unknown"


class Fault(StoreError):
    """A request that failed. `outcome` says what it has done."""

    def __init__(self, message: str, outcome: Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome


_BUSY = (
    Outcome.THROTTLED,
    "takes no more requests for now: a table with provisioned capacity needs more of it, or on-demand "
    "mode; one on demand that is new needs minutes to grow",
)
_BROKEN = (Outcome.UNKNOWN, "failed inside AWS: see the AWS Health Dashboard if it goes on")
_IDENTITY = (
    Outcome.REFUSED,
    "does not accept the credentials that boto3 found: see whether they are of the right account, "
    "complete and not revoked, and whether this machine's clock is right",
)
_EXPIRED = (
    Outcome.REFUSED,
    "says that the credentials have expired: a role renews them by itself; what was put into the "
    "environment or a file must be renewed there",
)
# By the code of the answer
# (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html).
_CODES: dict[str, tuple[Outcome, str]] = {
    "ResourceNotFoundException": (
        Outcome.REFUSED,
        "the table is not there: make it with: oauthgate store init, or correct "
        "its name, ?region=, or the account of the credentials; one that was just made takes seconds",
    ),
    "AccessDeniedException": (
        Outcome.REFUSED,
        "these credentials may not do that: grant dynamodb:GetItem, PutItem, DeleteItem and Scan on the "
        "table, and kms:Decrypt where it has a key of its own",
    ),
    "ProvisionedThroughputExceededException": _BUSY,
    "ThrottlingException": _BUSY,
    "Throttling": _BUSY,
    "RequestLimitExceeded": _BUSY,
    "LimitExceededException": _BUSY,
    "TransactionConflictException": (Outcome.THROTTLED, "another program has a transaction on it"),
    "ReplicatedWriteConflictException": (Outcome.THROTTLED, "another region writes the same record"),
    "TransactionInProgressException": (Outcome.THROTTLED, "another program has a transaction on it"),
    "InternalServerError": _BROKEN,
    "InternalFailure": _BROKEN,
    "ServiceUnavailable": _BROKEN,
    "UnrecognizedClientException": _IDENTITY,
    "InvalidClientTokenId": _IDENTITY,
    "InvalidSignatureException": _IDENTITY,
    "IncompleteSignatureException": _IDENTITY,
    "MissingAuthenticationTokenException": _IDENTITY,
    "SignatureDoesNotMatch": _IDENTITY,
    "AuthFailure": _IDENTITY,
    "ExpiredTokenException": _EXPIRED,
    "ExpiredToken": _EXPIRED,
    "RequestExpired": _EXPIRED,
}
_OTHER_KEY = (
    "the table has another key: it must be the string record_key alone; make a table of its own "
    "(docs/stores.md, DynamoDB)"
)
# A ValidationException has many causes and tells them by its text only.
_VALIDATION = {
    "does not match the schema": _OTHER_KEY,
    "Missing the key": _OTHER_KEY,
    "Type mismatch for key": "the key record_key of the table is not a string; make a table of its own",
    "Item size": "the record is larger than the 400 KB that DynamoDB takes",
    "Size of hashkey": "the key of the record, with ?prefix=, is longer than 2048 bytes",
}
# By the name of botocore's class; what is general is found last, along its bases.
_CLASSES: dict[str, tuple[Outcome, str]] = {
    "NoRegionError": (
        Outcome.REFUSED,
        "no region is known: name it with ?region=, or in AWS_DEFAULT_REGION",
    ),
    "NoCredentialsError": (
        Outcome.REFUSED,
        "boto3 found no credentials: give the machine or function a role, or set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    ),
    "PartialCredentialsError": (Outcome.REFUSED, "boto3 found credentials of which a part is missing"),
    "CredentialRetrievalError": (
        Outcome.REFUSED,
        "boto3 could not get credentials where it was told to",
    ),
    "TokenRetrievalError": (
        Outcome.REFUSED,
        "the AWS sign-in of this machine has ended: `aws sso login`",
    ),
    "SSOError": (Outcome.REFUSED, "the AWS sign-in of this machine has ended: `aws sso login`"),
    "ProfileNotFound": (Outcome.REFUSED, "the profile in AWS_PROFILE is not in the AWS configuration"),
    "SSLError": (
        Outcome.UNKNOWN,
        "shows a certificate that is not trusted here, or does not speak TLS: see ?endpoint=, and "
        "AWS_CA_BUNDLE",
    ),
    "ProxyConnectionError": (Outcome.UNSENT, "cannot be reached through the proxy in HTTPS_PROXY"),
    "EndpointConnectionError": (
        Outcome.UNSENT,
        "cannot be reached: see the network, the security group or VPC endpoint, and ?region= or "
        "?endpoint=",
    ),
    "ConnectTimeoutError": (
        Outcome.UNSENT,
        "cannot be reached in time: see the network, the security group or VPC endpoint; "
        "?connect_timeout= says how long is waited",
    ),
    "ReadTimeoutError": (
        Outcome.UNKNOWN,
        "gave no answer in time; ?timeout= says how long is waited",
    ),
    "HTTPClientError": (Outcome.UNKNOWN, "broke off in the middle of a request"),
    "ResponseParserError": (
        Outcome.UNKNOWN,
        "gave an answer that is not DynamoDB's: see ?endpoint=, and proxies on the way",
    ),
}


def fault(place: Place, error: BaseException) -> Fault:
    """`error` of botocore, or of what lies under it, as what the gate understands."""
    response = getattr(error, "response", None)
    outcome, words = _answered(response) if isinstance(response, dict) else _raised(error)
    return Fault(f"DynamoDB ({place}): {words}", outcome)


def code_of(error: BaseException) -> str:
    """The code of an answer of AWS, or nothing."""
    response: Any = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return code if isinstance(code, str) else ""


def _answered(response: dict[str, Any]) -> tuple[Outcome, str]:
    code, text = (str(response.get("Error", {}).get(name, "")) for name in ("Code", "Message"))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _CODES:
        return _CODES[code]
    if code == "ValidationException":
        known = [words for begin, words in _VALIDATION.items() if begin in text]
        return Outcome.REFUSED, known[0] if known else "refused a request as not valid"
    # The code comes from the other side, which may be any: a plain word of it is shown.
    named = code if re.fullmatch(r"[A-Za-z]{1,60}", code) else f"status {status}"
    if isinstance(status, int) and 400 <= status < 500:
        return Outcome.REFUSED, f"refused a request ({named})"
    return Outcome.UNKNOWN, f"{_BROKEN[1]} ({named})"


def _raised(error: BaseException) -> tuple[Outcome, str]:
    for each in _chain(error):
        for base in type(each).__mro__:
            if base.__name__ in _CLASSES:
                return _CLASSES[base.__name__]
    return Outcome.UNKNOWN, f"a request failed with {type(error).__name__}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(5):
        if error is not None:
            yield error
            error = error.__cause__ or error.__context__
