"""What the hub client's exceptions mean to a user, and the one line that cures each."""

from headrace.core.errors import ErrorKind, HeadraceError

_LOCAL_CURE = "or download it where there is a network (`hf download {repo}`) and name the directory"


def explain(error: BaseException, repo: str, revision: str | None, endpoint: str, *, offline: bool) -> HeadraceError:
    """The `HeadraceError` for an exception of huggingface_hub, or of the transport below it."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError):
        cause = error.__cause__
        if isinstance(cause, errors.HfHubHTTPError):
            return explain(cause, repo, revision, endpoint, offline=offline)
        return _no_network(repo, revision, endpoint, offline)
    if isinstance(error, errors.GatedRepoError):
        return _gated(repo, endpoint, error.response.status_code)
    if isinstance(error, errors.RepositoryNotFoundError):
        return _error(
            f"{repo} is not on the hub, and there is no such directory here",
            rule="It may also be private",
            fix="Check the name or, if it is private, set HF_TOKEN to a token that may read it",
            kind=ErrorKind.NOT_FOUND,
        )
    if isinstance(error, errors.RevisionNotFoundError):
        fix = f"See the branches and tags at {endpoint}/{repo}/tree/main"
        return _error(f"{repo} has no revision {revision!r}", fix=fix, kind=ErrorKind.NOT_FOUND)
    if isinstance(error, errors.HFValidationError):
        return _error(f"{repo} is not a hub id", rule="A hub id reads organisation/name")
    if isinstance(error, errors.HfHubHTTPError):
        return _http(repo, endpoint, error.response.status_code)
    return _interrupted(error, repo, endpoint)


def _gated(repo: str, endpoint: str, status: int) -> HeadraceError:
    if status == ErrorKind.UNAUTHORIZED.value:
        return _error(
            f"{repo} is gated, and no token was given",
            fix=f"Set HF_TOKEN to a token from {endpoint}/settings/tokens of an account that has accepted its licence",
            kind=ErrorKind.UNAUTHORIZED,
        )
    return _error(
        f"{repo} is gated, and the token's account has not accepted its licence",
        fix=f"Accept the licence at {endpoint}/{repo}",
        kind=ErrorKind.FORBIDDEN,
    )


def _http(repo: str, endpoint: str, status: int) -> HeadraceError:
    if status == ErrorKind.UNAUTHORIZED.value:
        return _error(
            f"The hub does not know the token that was given for {repo}",
            fix=f"Set HF_TOKEN to a valid token from {endpoint}/settings/tokens, or to nothing for a public model",
            kind=ErrorKind.UNAUTHORIZED,
        )
    if status == ErrorKind.FORBIDDEN.value:
        return _error(
            f"The token that was given may not read {repo}",
            fix=f"Give it read access to this repository at {endpoint}/settings/tokens",
            kind=ErrorKind.FORBIDDEN,
        )
    return _error(
        f"{repo} could not be fetched: {endpoint} answered {status}",
        fix=f"Try again in a minute, {_LOCAL_CURE.format(repo=repo)}",
        kind=ErrorKind.UNAVAILABLE,
    )


def _no_network(repo: str, revision: str | None, endpoint: str, offline: bool) -> HeadraceError:
    which = f"{repo} at revision {revision}" if revision else repo
    why = "HF_HUB_OFFLINE is set" if offline else f"there is no network to {endpoint}"
    cure = "Unset HF_HUB_OFFLINE" if offline else "Check the connection (HTTPS_PROXY, HF_ENDPOINT)"
    return _error(
        f"{which} is not in the cache, or only in part, and {why}",
        fix=f"{cure}, {_LOCAL_CURE.format(repo=repo)}",
        kind=ErrorKind.UNAVAILABLE,
    )


def _interrupted(error: BaseException, repo: str, endpoint: str) -> HeadraceError:
    """A full disk, a dropped connection: whatever it is, what has been fetched stays in the cache."""
    return _error(
        f"Fetching {repo} from {endpoint} failed with {type(error).__name__}: {error}",
        fix=f"Run it again, and it goes on where it stopped, {_LOCAL_CURE.format(repo=repo)}",
        kind=ErrorKind.UNAVAILABLE,
    )


def _error(what: str, *, rule: str = "", fix: str = "", kind: ErrorKind = ErrorKind.INVALID_REQUEST) -> HeadraceError:
    return HeadraceError(what, rule=rule, fix=fix, param="model", kind=kind)
