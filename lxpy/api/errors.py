"""Every error a user may cause or meet, with its HTTP status.

::

    ApiError                 status, message
    ├── BadRequest     400   the request is wrong and nothing has changed
    ├── Forbidden      403   the caller may not do this
    ├── NotFound       404   "Instance not found" and the like
    ├── Conflict       409   exists already, or is busy, or in use
    ├── PreconditionFailed 412  If-Match did not match
    ├── Unavailable    503   a server or a resource is away
    ├── NoSpace        507   a disk is full, or a quota used up
    └── InternalError  500   ours: a bug, or a kernel call that failed

They are raised where the fault is known. The daemon turns them into the error envelope in one place
(``lxpy/daemon/envelope.py``) and the client turns that envelope back into the same classes.
"""


class ApiError(Exception):
    """An error with an HTTP status and one clear line for the user."""

    status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class BadRequest(ApiError):
    status = 400


class Forbidden(ApiError):
    status = 403


class NotFound(ApiError):
    status = 404


class Conflict(ApiError):
    status = 409


CHANGED = "The object was changed by somebody else meanwhile: read it again and retry"


class PreconditionFailed(ApiError):
    status = 412


class InternalError(ApiError):
    status = 500


class Unavailable(ApiError):
    status = 503


class NoSpace(ApiError):
    status = 507


BY_STATUS: dict[int, type[ApiError]] = {
    cls.status: cls
    for cls in (BadRequest, Forbidden, NotFound, Conflict, PreconditionFailed, InternalError, Unavailable, NoSpace)
}


def from_status(status: int, message: str) -> ApiError:
    """The error class of an HTTP status; unknown ones become a plain `ApiError` with that status."""
    cls = BY_STATUS.get(status)
    if cls is not None:
        return cls(message)
    error = ApiError(message)
    error.status = status
    return error
